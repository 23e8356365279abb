"""How commands speak to a person: colour and progress on a terminal's standard error, and only there."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

PIPE_WIDTH = 10_000  # columns; a file has no edge at which a line must be broken
Result = TypeVar("Result")


def console(*, stderr: bool = True) -> Console:
    """Return a stream as rich writes it: plain and without a width unless it is a terminal; NO_COLOR is obeyed."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)


def counting_bar() -> Progress:
    """Return a bar that says how many of how many are done; gone at the end, and nothing unless on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn

    screen = console()
    return Progress(
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
        redirect_stdout=False,
        disable=not screen.is_terminal,
    )


def phases_bar() -> Progress:
    """Return a bar that names what is being done and how much of it is; gone at the end, and only on a terminal."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    screen = console()
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
        redirect_stdout=False,
        disable=not screen.is_terminal,
    )


def run_until_signal(work: Coroutine[Any, Any, Result], saying: str | None = None) -> Result:
    """Run `work`; SIGTERM and a closed terminal end it as Ctrl-C does, so that it can clean up.

    `saying` is shown on a terminal meanwhile, for work that may take a while and prints nothing itself.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    if saying is None:
        return asyncio.run(work)
    with console().status(saying):
        return asyncio.run(work)
