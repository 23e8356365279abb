"""All tasks of the loop: their names, since when they have been seen, and where they wait."""

from __future__ import annotations

import asyncio
import time
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

from v2td.sampling import DEPTH, place_of

LOOK_SECONDS = 1.0  # so old is a task when it is first seen, at most; a task factory would cost every task
SHOWN = 2000
_FRAMES = ("cr_frame", "gi_frame", "ag_frame")
_AWAITED = ("cr_await", "gi_yieldfrom", "ag_await")


class Tasks:
    """Remembers when it first saw each task."""

    def __init__(self) -> None:
        self._first_seen: WeakKeyDictionary[asyncio.Task[Any], float] = WeakKeyDictionary()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._look()
            await asyncio.sleep(LOOK_SECONDS)

    def told(self) -> dict[str, Any]:
        """Return all tasks, the oldest first; `age_seconds` may be LOOK_SECONDS too low."""
        self._look()
        now = time.monotonic()
        tasks = sorted(asyncio.all_tasks(), key=lambda task: self._first_seen[task])
        return {
            "count": len(tasks),
            "tasks": [
                {
                    "name": task.get_name()[:200],
                    "age_seconds": round(now - self._first_seen[task], 1),
                    **_where(task.get_coro()),
                }
                for task in tasks[:SHOWN]
            ],
        }

    def _look(self) -> None:
        now = time.monotonic()
        for task in asyncio.all_tasks():
            self._first_seen.setdefault(task, now)


def _where(coroutine: object) -> dict[str, Any]:
    """Return the coroutine's name, the stack of what it awaits, the innermost last, and what that waits for."""
    name = getattr(coroutine, "__qualname__", type(coroutine).__name__)
    stack: list[str] = []
    while coroutine is not None and len(stack) < DEPTH:
        frame = _first(coroutine, _FRAMES)
        if not isinstance(frame, FrameType):
            break
        stack.append(str(place_of(frame)))
        coroutine = _first(coroutine, _AWAITED)
    return {"coroutine": name, "stack": stack, "waits_for": None if coroutine is None else type(coroutine).__name__}


def _first(thing: object, names: tuple[str, ...]) -> object | None:
    return next((found for name in names if (found := getattr(thing, name, None)) is not None), None)
