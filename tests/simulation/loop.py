"""Virtual time: an event loop that jumps to the next timer when nothing is ready, and processes that die or freeze.

A process is whatever runs in a context that names it. A dead one's callbacks never run again, so that nothing is
cleaned up; a frozen one's wait until it goes on.
"""

from __future__ import annotations

import asyncio
import heapq
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from itertools import count
from typing import Any

EPOCH = 1_750_000_000.0  # what time.time() says at the start
MAX_STEPS = 2_000_000  # callbacks without an end in sight: something turns round and round

_serial = count()


class StuckError(Exception):
    """Nothing is scheduled any more, or time and steps are up."""


class Process:
    """What can die or freeze."""

    def __init__(self, name: str, loop: VirtualLoop) -> None:
        self.name = name
        self.dead = False
        self._loop = loop
        self._frozen = False
        self._deferred: list[asyncio.Handle] = []
        self._at_death: list[Callable[[], None]] = []

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task that belongs to the process, as all that it starts does."""
        context = Context()
        context.run(PROCESS.set, self)
        return self._loop.create_task(coroutine, context=context)

    def kill(self) -> None:
        """As kill -9."""
        self.dead = True
        for callback in self._at_death:
            callback()

    def at_death(self, callback: Callable[[], None]) -> None:
        """Have `callback` called by whoever kills."""
        self._at_death.append(callback)

    def freeze(self) -> None:
        """As SIGSTOP."""
        self._frozen = True

    def thaw(self) -> None:
        """As SIGCONT."""
        self._frozen = False
        self._loop.run_soon(self._deferred)
        self._deferred = []

    def runs(self, handle: asyncio.Handle) -> bool:
        """Whether the callback may run now; a frozen process keeps it."""
        if self._frozen and not self.dead:
            self._deferred.append(handle)
            return False
        return not self.dead


PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)
SERVER = Context()  # of what belongs to no daemon, and survives all of them


class _Handle(asyncio.Handle):
    __slots__ = ()

    _context: Context

    def _run(self) -> None:
        process = self._context.get(PROCESS)
        if process is None or process.runs(self):
            super()._run()


class _TimerHandle(asyncio.TimerHandle):
    __slots__ = ()

    _context: Context

    def _run(self) -> None:
        process = self._context.get(PROCESS)
        if process is None or process.runs(self):
            super()._run()


class _Task(asyncio.Task[Any]):
    """Hashes by its number: sets of tasks are in the same order in each run of a seed."""

    _log_destroy_pending = False

    def __init__(self, *args: Any, **options: Any) -> None:
        self._serial = next(_serial)
        super().__init__(*args, **options)

    def __hash__(self) -> int:
        return self._serial

    def __eq__(self, other: object) -> bool:
        return self is other


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order of asyncio; waiting takes no time."""

    def __init__(self, limit: float = 1e5) -> None:
        super().__init__()
        self.now = 0.0
        self._limit = limit
        self._steps = 0
        self._selector = self
        self._tasks: list[asyncio.Task[Any]] = []  # dead processes' tasks are not to be collected meanwhile
        self.set_task_factory(self._make_task)
        self.set_exception_handler(lambda _loop, _context: None)  # tasks of the dead are never awaited

    def time(self) -> float:
        return self.now

    def select(self, timeout: float | None) -> list[Any]:
        """Jump to the next timer."""
        self._steps += len(self._ready)  # type: ignore[attr-defined]  # of BaseEventLoop, not in the stubs
        if timeout is None:
            raise StuckError("nothing is scheduled any more")
        if self.now > self._limit or self._steps > MAX_STEPS:
            raise StuckError(f"no end after {self.now:.0f} s and {self._steps} steps")
        self.now += timeout
        return []

    def run_soon(self, handles: list[asyncio.Handle]) -> None:
        """Run what was deferred, in its order."""
        self._ready.extend(handles)  # type: ignore[attr-defined]  # of BaseEventLoop, not in the stubs

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]  # without its type variables
        handle = _Handle(callback, args, self, copy_context() if context is None else context)
        self._ready.append(handle)  # type: ignore[attr-defined]  # of BaseEventLoop, not in the stubs
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # there is one thread

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:  # type: ignore[override]  # without its type variables
        timer = _TimerHandle(when, callback, args, self, copy_context() if context is None else context)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]  # of BaseEventLoop, not in the stubs
        timer._scheduled = True  # type: ignore[attr-defined]  # not in the stubs
        return timer

    def call_later(  # type: ignore[override]  # without its type variables
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def _process_events(self, _events: list[Any]) -> None:
        pass

    def _make_task(self, loop: Any, coroutine: Any, context: Context | None = None) -> asyncio.Task[Any]:
        task = _Task(coroutine, loop=loop, context=context)
        self._tasks.append(task)
        return task

    def bury(self) -> None:
        """Close the coroutines that never ended; what they do then is heard by nobody."""
        self.close()
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        asyncio._set_running_loop(self)
        try:
            for task in self._tasks:
                if not task.done():
                    _close(task.get_coro())
            self._tasks.clear()
        finally:
            asyncio._set_running_loop(None)
            sys.unraisablehook = hook


def _close(coroutine: Any) -> None:
    """Close a coroutine that awaits in its `finally`, which it must not: as often as it does."""
    for _ in range(20):
        try:
            coroutine.close()
        except BaseException:  # noqa: BLE001 (the dead may say what they like)
            continue
        return


@contextmanager
def virtual_time(limit: float) -> Iterator[VirtualLoop]:
    """A loop, whose time is the time of all modules inside the block."""
    real = time.monotonic, time.perf_counter, time.time
    loop = VirtualLoop(limit)
    time.monotonic = time.perf_counter = loop.time
    time.time = lambda: EPOCH + loop.now
    try:
        yield loop
    finally:
        loop.bury()
        time.monotonic, time.perf_counter, time.time = real
