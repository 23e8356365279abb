"""How commands speak to a person: colour and progress on a terminal's standard error, and only there."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

Result = TypeVar("Result")


def console() -> Console:
    """Return standard error as rich writes it: plain unless it is a terminal and NO_COLOR is unset."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def run_until_signal(work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work`; SIGTERM and a closed terminal end it as Ctrl-C does, so that it can clean up."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    return asyncio.run(work)
