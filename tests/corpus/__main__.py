"""`python -m tests.corpus`: all inputs; `make corpus` starts the services around it.

Exit status 1 when an input has a wrong fate, a daemon died, a message was lost or the trap was reached.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.corpus import report
from tests.corpus.programme import run_all
from tests.services import state
from v2td import bundled

RESULTS = Path(__file__).parent / "results"
WIDTH = 130


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments name; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description=__doc__)
    parser.add_argument("--only", default="", metavar="REGEX", help="inputs whose name matches, such as 'A2[12]'")
    parser.add_argument("--keep", action="store_true", help="keep the folder with logs and configurations")
    chosen = parser.parse_args(arguments)
    running = state.read(state.file_in_use())
    if running is None or running.services is None:
        print("the services are not up; run: make corpus", file=sys.stderr)
        return 2
    bundled.model_folder()  # built before any daemon waits for it
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="v2td-corpus-"))
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        ran = uvloop.run(run_all(running.services, folder, progress, chosen.only))
    seconds = time.monotonic() - began
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, WIDTH)  # a pipe has no width, and the table is to be read all the same
    report.show(ran, console)
    found = report.as_json(ran, seconds)
    path = report.write(RESULTS / "only" if chosen.only else RESULTS, found)
    shown = ", ".join(f"{found[key]} {key}" for key in ("inputs", "wrong", "daemon_deaths", "lost", "trap_contacts"))
    print(f"{shown}; {seconds:.0f} s; {path}", file=sys.stderr)
    return 1 if ran.problems else 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)
    try:
        sys.exit(main(sys.argv[1:]))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
