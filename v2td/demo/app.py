"""`v2td demo`, from its options to its exit code."""

from __future__ import annotations

import asyncio
import json
import signal
from dataclasses import dataclass

from rich.console import Console

from v2td.demo.report import print_how_to_play, print_results, print_where_to_look
from v2td.demo.run import follow, run_jobs
from v2td.demo.session import Session, session

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PLAIN_WIDTH = 120  # columns, where there is no terminal


@dataclass(frozen=True, slots=True)
class Options:
    """The flags: `once` leaves after the report unless `keep` stays; `json` reports as one object on stdout."""

    once: bool = False
    json: bool = False
    keep: bool = False

    @property
    def stays(self) -> bool:
        """Whether everything stays up after the report, until a signal."""
        return self.keep or not self.once


async def main(options: Options) -> int:
    """Run the demo and return its exit code: 0 when every job came to the end it should.

    SIGINT, SIGTERM and SIGHUP end it at any time, and everything it started: before the report with 128 + the
    signal's number. Raises ServiceError when something does not start or dies. Run it in the main thread.
    """
    console = Console(stderr=options.json)
    if not console.is_terminal:
        console = Console(stderr=options.json, width=PLAIN_WIDTH)
    received = _cancelled_by_signals()
    code = None
    try:
        console.print("Starting a broker, a database, a web server and the daemon…")
        async with session() as running:
            results = await run_jobs(running, console)
            code = 0 if results.good else 1
            print_results(results, console)
            if options.json:
                print(json.dumps(results.summary()), flush=True)
            if options.stays:
                await _stay(options, running, console)
    except asyncio.CancelledError:
        if not received:
            raise
        return code if code is not None else 128 + received[0]
    return code


async def _stay(options: Options, running: Session, console: Console) -> None:
    """Until cancelled; ServiceError when the daemon ends before."""
    print_where_to_look(running, console)
    if options.keep:
        print_how_to_play(running, console)
    console.print("Ctrl-C ends everything.")
    if options.keep:
        await follow(running, console)
    await running.daemon.wait()
    running.raise_if_dead()


def _cancelled_by_signals() -> list[int]:
    """Let the first of the signals cancel the current task; returns the list that it is then added to.

    Later ones change nothing: the way down has its own deadlines, and cutting it short would leave things behind.
    """
    received: list[int] = []
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("there is no task to cancel")

    def stop(number: int) -> None:
        if not received:
            received.append(number)
            task.cancel()

    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    return received
