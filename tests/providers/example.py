"""The example package of docs/providers.md, installed as its readers would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from shutil import copytree

PACKAGE = Path(__file__).parent / "example_package"


def install(folder: Path) -> Path:
    """Install it below `folder`; returns what is to be on sys.path."""
    source, target = folder / "source", folder / "site"
    copytree(PACKAGE, source)  # a build leaves files behind
    quietly = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    command = (sys.executable, "-m", "pip", "install", *quietly, "--target", str(target), str(source))
    subprocess.run(command, check=True)
    return target
