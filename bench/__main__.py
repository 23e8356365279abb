"""`python -m bench`: run the measures one after the other; `make bench` starts the services around it.

Exit status 1 when a measure failed or found something wrong; the others run all the same.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import uvloop
from rich.console import Console

from bench import machine, report
from bench.context import Context, Size
from bench.measures import MEASURES, Measure
from tests.services import state
from tests.services.state import Services

RESULTS = Path(__file__).parent / "results"
MEASURE_SECONDS = {"quick": 600, "default": 1200, "full": 9000}  # a measure that hangs must not hang the rest

_console = Console(stderr=True, highlight=False, soft_wrap=True)


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments name; results go to bench/results, those of --only to a folder of their own in it."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", dest="size", action="store_const", const="quick", default="default")
    sizes.add_argument("--full", dest="size", action="store_const", const="full")
    names = [measure.name for measure in MEASURES]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--results", type=Path, help="where latest.json, report.md and the plots go")
    chosen = parser.parse_args(arguments)
    services = _services()
    if services is None:
        print("the services are not up; run: make bench", file=sys.stderr)
        return 2
    measures = [
        measure
        for measure in MEASURES
        if (measure.name in chosen.only if chosen.only else chosen.size == "full" or not measure.only_full)
    ]
    results = chosen.results or (RESULTS / "only" if chosen.only else RESULTS)
    described = machine.describe()
    with tempfile.TemporaryDirectory(prefix="v2td-bench-") as folder:
        ran = [_run(measure, services, chosen.size, Path(folder) / measure.name) for measure in measures]
    report.write(results, chosen.size, described, ran)
    problems = [f"{each.measure.name}: {problem}" for each in ran for problem in each.problems]
    for problem in problems:
        _console.print(f"problem: {problem}", markup=False, style="bold red")
    _console.print(f"results: {results / 'report.md'}")
    return 1 if problems else 0


def _services() -> Services | None:
    running = state.read(state.file_in_use())
    return running.services if running else None


def _run(measure: Measure, services: Services, size: Size, folder: Path) -> report.Ran:
    """Run one measure on an event loop of its own; whatever it raises is its result."""
    began = time.monotonic()

    def say(line: str) -> None:
        _console.print(f"{time.monotonic() - began:6.1f} s  {measure.name}: {line}", markup=False)

    async def measured() -> report.Ran:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        deadline = asyncio.timeout(MEASURE_SECONDS[size])
        try:
            async with deadline:
                findings = await measure.load()(Context(services, size, folder, say))
        except TimeoutError:
            if deadline.expired():
                raise TimeoutError(f"not done after {MEASURE_SECONDS[size]} s") from None
            raise
        return report.Ran(measure, time.monotonic() - began, findings)

    folder.mkdir()
    say("begins")
    try:
        ran = uvloop.run(measured())
    except Exception as error:  # noqa: BLE001 (the other measures are to run)
        traceback.print_exc()
        return report.Ran(measure, time.monotonic() - began, failure=f"{type(error).__name__}: {error}")
    for key, value in ran.findings.values.items():
        say(f"{key} = {value:.4g}")
    return ran


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    try:
        sys.exit(main(sys.argv[1:]))
    except (KeyboardInterrupt, asyncio.CancelledError):  # Ctrl-C or SIGTERM: everything that was started has ended
        sys.exit(130)
