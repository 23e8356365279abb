"""`python -m tests.chaos`: run the faults; `make chaos` starts the services around it.

Exit status 1 on any loss, duplicate row, orphan or missed deadline, and when a run of all faults left out a failpoint.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop
from rich.console import Console

from tests.chaos import report
from tests.chaos.fault import Fault, Size
from tests.chaos.programme import LANES, Ran, all_faults, run_all
from tests.services import state
from tests.services.state import Services
from v2td import bundled

RESULTS = Path(__file__).parent / "results"
WIDTH = 110


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments name; returns the exit status."""
    faults = all_faults()
    chosen = _parser([each.name for each in faults]).parse_args(arguments)
    if chosen.list:
        _list(faults)
        return 0
    running = state.read(state.file_in_use())
    if running is None or running.services is None:
        print("the services are not up; run: make chaos", file=sys.stderr)
        return 2
    whole = not chosen.only
    picked = [each for each in faults if whole or each.name in chosen.only]
    size = Size(chosen.long, chosen.cycles)
    bundled.model_folder()  # built before any daemon waits for it
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="v2td-chaos-", ignore_cleanup_errors=True) as folder:
        ran = uvloop.run(_run(picked, size, running.services, Path(folder), chosen.lanes))
        if not report.passed(ran, whole=False):
            print(f"logs of what failed: {_keep(Path(folder), ran)}", file=sys.stderr)
    seconds = time.monotonic() - began
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, WIDTH)  # a pipe has no width, and the table is to be read all the same
    report.show(ran, console, whole=whole)
    path = report.write(RESULTS if whole else RESULTS / "only", report.as_json(ran, size, seconds, whole=whole))
    print(f"{seconds:.0f} s; {path}", file=sys.stderr)
    return 0 if report.passed(ran, whole=whole) else 1


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    sizes = parser.add_mutually_exclusive_group()
    parser.set_defaults(long=False)
    sizes.add_argument("--short", dest="long", action="store_false", help="for each merge, within 6 minutes (default)")
    sizes.add_argument("--long", dest="long", action="store_true", help="for docs/reliability.md: hours")
    parser.add_argument("--cycles", type=int, metavar="N", help="cycles of kill -9, instead of 60 or 1000")
    parser.add_argument("--only", nargs="+", choices=names, metavar="FAULT", help="only these; see --list")
    parser.add_argument("--lanes", type=int, default=LANES, help=f"faults at once (default {LANES})")
    parser.add_argument("--list", action="store_true", help="list the faults")
    return parser


def _list(faults: Sequence[Fault]) -> None:
    for fault in faults:
        short, long = fault.seconds
        print(f"{fault.name:32} {short:5.0f} s {long:7.0f} s  {fault.summary}")


async def _run(faults: Sequence[Fault], size: Size, services: Services, folder: Path, lanes: int) -> list[Ran]:
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {line}", file=sys.stderr, flush=True)

    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run_all(faults, size, services, folder, say, lanes=lanes)


def _keep(folder: Path, ran: Sequence[Ran]) -> Path:
    """Copy the logs of faults that failed to where they stay until a run fails again; returns where."""
    kept = RESULTS / "logs"
    shutil.rmtree(kept, ignore_errors=True)
    for each in ran:
        for log in (folder / each.fault.name).rglob("*.log") if not each.result.passed else ():
            target = kept / log.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(log, target)
    return kept


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)  # clients complain about each service that is away
    try:
        sys.exit(main(sys.argv[1:]))
    except (KeyboardInterrupt, asyncio.CancelledError):  # Ctrl-C or SIGTERM: everything that was started has ended
        sys.exit(130)
