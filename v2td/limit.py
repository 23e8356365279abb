"""Limits on how many jobs are under way at once, and on how long each may take.

The urgent are let in first, where asyncio.Semaphore goes by arrival.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from heapq import heappop, heappush
from itertools import count

from v2td.config import PipelineSettings, Settings
from v2td.errors import ErrorClass, JobError

LARGE_BYTES = 1_000_000  # compressed: what takes many windows, mostly


def max_prepared(settings: Settings, slots: int) -> int:
    """Return how many jobs may be decoded or being transcribed at once, so that the slots' batches fill.

    A batch holds 8 windows, and in the mode `packed` a window some 8 short messages.
    """
    automatic = 96 * slots if settings.engine.window_mode == "packed" else 32 * slots + 8
    return settings.pipeline.max_prepared or automatic


class Priority:
    """How urgent a job is now (0 first): the queues that it waits in are told when that changes.

    The job's tasks find it in CURRENT, so that no queue has to be handed it. Where there is none, as for what comes by
    HTTP, the priority stays what it is.
    """

    __slots__ = ("_told", "value")

    def __init__(self, value: int) -> None:
        self.value = value
        self._told: list[Callable[[int], None]] = []

    def change(self, value: int) -> None:
        """Change it, in all queues in which the job waits now, and for those to come."""
        self.value = value
        for tell in tuple(self._told):
            tell(value)

    def watch(self, tell: Callable[[int], None]) -> None:
        """Call `tell` with each other value that it gets, until `unwatch`."""
        self._told.append(tell)

    def unwatch(self, tell: Callable[[int], None]) -> None:
        """Call it no more."""
        self._told.remove(tell)


CURRENT: ContextVar[Priority | None] = ContextVar("v2td_priority", default=None)


@contextmanager
def ranked(priority: int, tell: Callable[[int], None]) -> Iterator[None]:
    """Call `tell` with the priority of the job whose task this is, and with each change inside; `priority` if none."""
    current = CURRENT.get() or Priority(priority)
    tell(current.value)
    current.watch(tell)
    try:
        yield
    finally:
        current.unwatch(tell)


class PriorityLimit:
    """At most `size` inside; who waits is let in by priority (0 first), then by arrival."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._arrivals = count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        # Who got another priority is in the heap once more; the entry of before is passed over.
        self._moved: dict[asyncio.Future[None], int] = {}

    @asynccontextmanager
    async def inside(self, priority: int) -> AsyncIterator[None]:
        """Wait to be let in; leaving lets in the next. A cancelled wait takes no place."""
        await self._enter(priority)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, priority: int) -> None:
        if self._free > 0:  # then nobody waits
            self._free -= 1
            return
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        arrival = next(self._arrivals)
        current = CURRENT.get() or Priority(priority)
        heappush(self._waiting, (current.value, arrival, admitted))
        move = partial(self._move, arrival, admitted)
        current.watch(move)
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():  # let in and cancelled at once
                self._leave()
            raise
        finally:
            current.unwatch(move)
            if self._moved:
                self._moved.pop(admitted, None)

    def _move(self, arrival: int, admitted: asyncio.Future[None], priority: int) -> None:
        self._moved[admitted] = priority
        heappush(self._waiting, (priority, arrival, admitted))

    def _leave(self) -> None:
        while self._waiting:
            priority, _arrival, admitted = heappop(self._waiting)
            if admitted.done() or (self._moved and self._moved.get(admitted, priority) != priority):
                continue  # a cancelled wait stays in the heap until its turn
            admitted.set_result(None)
            return
        self._free += 1


class PreparedLimit:
    """At most `size` jobs inside, at most half of them large: a short message finds a place behind long recordings."""

    def __init__(self, size: int) -> None:
        self._all = PriorityLimit(size)
        self._large = PriorityLimit(max(1, size // 2))

    @asynccontextmanager
    async def inside(self, priority: int, audio_bytes: int) -> AsyncIterator[None]:
        """Wait to be let in with a recording of that size; a cancelled wait takes no place."""
        large = self._large.inside(priority) if audio_bytes > LARGE_BYTES else nullcontext()
        async with large, self._all.inside(priority):
            yield


class Deadlines:
    """How long a job may take: `expiry` is for all of it, `attempt` for what is under way.

    Both clocks start with the first window that leaves the queue: a backlog fails nothing. Until then a job can only
    expire, if its message says when.
    """

    def __init__(self, settings: PipelineSettings, expires_at: datetime | None) -> None:
        self.expiry = asyncio.timeout(None)
        self.attempt = asyncio.timeout(None)
        self._settings = settings
        self._expires_at = expires_at
        self._job_heard: float | None = None  # time.monotonic() of the first window
        self._attempt_heard: float | None = None
        self._audio_seconds = 0.0  # as far as it was decoded

    def start_attempt(self) -> None:
        """Wait for the first window of a new attempt; JobError expired when it is too late."""
        self.attempt = asyncio.timeout(None)
        self._attempt_heard = None
        if self._expires_at is not None:
            seconds = (self._expires_at - datetime.now(UTC)).total_seconds()
            if seconds <= 0:
                raise self.expired()
            _move(self.expiry, asyncio.get_running_loop().time() + seconds)

    def heard(self, audio_seconds: float) -> None:
        """Take note that a window started or ended, and how much is decoded by now."""
        now = time.monotonic()
        self._job_heard = self._job_heard or now
        self._attempt_heard = self._attempt_heard or now
        self._audio_seconds = max(self._audio_seconds, audio_seconds)
        _move(self.expiry, None)
        _move(self.attempt, asyncio.get_running_loop().time() + self._end() - now)

    def overdue(self) -> bool:
        """Whether no further attempt may begin."""
        return self._job_heard is not None and time.monotonic() >= self._end_of_job(self._job_heard)

    def expired(self) -> JobError:
        """Return what a job fails with whose `expiry` has passed."""
        at = "" if self._expires_at is None else f" at {self._expires_at.isoformat()}"
        return JobError(ErrorClass.EXPIRED, f"expired{at}")

    def _end(self) -> float:
        assert self._job_heard is not None
        assert self._attempt_heard is not None
        attempt_seconds = max(self._settings.attempt_seconds, 2 * self._audio_seconds)
        return min(self._attempt_heard + attempt_seconds, self._end_of_job(self._job_heard))

    def _end_of_job(self, heard: float) -> float:
        return heard + max(self._settings.job_seconds, 3 * self._audio_seconds)


def _move(timeout: asyncio.Timeout, when: float | None) -> None:
    """Move a deadline, unless it is over: then its task is cancelled, and comes to know it next."""
    with suppress(RuntimeError):
        timeout.reschedule(when)
