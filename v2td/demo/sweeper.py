"""`python -I -S sweeper.py FOLDER`: remove FOLDER when standard input ends, which it does when the demo does.

A process that is killed cannot tidy up; this one outlives it by a moment and does. It imports nothing of v2td.
"""

import shutil
import sys
import time
from pathlib import Path

PATIENCE_SECONDS = 30.0  # the demo's orphans write for a moment before their own end reaches them


def sweep(folder: Path) -> None:
    """Remove the folder, again and again until nobody puts anything into it any more."""
    end = time.monotonic() + PATIENCE_SECONDS
    while folder.exists() and time.monotonic() < end:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.1)


if __name__ == "__main__":
    sys.stdin.read()
    sweep(Path(sys.argv[1]))
