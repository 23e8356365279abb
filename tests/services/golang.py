"""Programs that Go builds."""

import os
import subprocess
from pathlib import Path


def install(package: str, folder: Path) -> None:
    """Compiles ``package``, MODULE@VERSION, into ``folder``; minutes.  Raises subprocess.CalledProcessError."""
    environment = {**os.environ, "GOBIN": str(folder)}
    subprocess.run(["go", "install", package], check=True, stdin=subprocess.DEVNULL, env=environment)
