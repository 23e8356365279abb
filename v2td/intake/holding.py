"""Records that must not be worked on yet: those of `kafka.retry_topic` say in a header from when on they may.

That moment is one of the wall clock, by nature: it was written by another process, perhaps on another machine, and must
survive both. It is looked at again and again, so that a clock that jumps neither holds a record for ever nor for long.
"""

from __future__ import annotations

import asyncio
import time

from v2td.jobs import Headers
from v2td.messages.headers import NOT_BEFORE, header

LOOK_SECONDS = 5.0


def not_before(headers: Headers) -> float | None:
    """Return the moment, in seconds since the epoch, that the last such header names; None without a sound one."""
    value = header(headers, NOT_BEFORE) or ""
    # Sixteen digits are a moment far beyond any delay, and a float still tells them apart.
    return int(value) / 1000 if value.isdecimal() and len(value) <= 16 else None


def is_due(moment: float) -> bool:
    """Whether the moment has come."""
    return time.time() >= moment


async def until_due(moment: float, longest: float) -> None:
    """Wait until the moment has come, at most `longest` seconds, which a clock's jump does not change."""
    try:
        async with asyncio.timeout(longest):
            while (left := moment - time.time()) > 0:  # noqa: ASYNC110 (no event tells of the wall clock)
                await asyncio.sleep(min(left, LOOK_SECONDS))
    except TimeoutError:
        return
