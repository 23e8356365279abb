"""The circuit breaker in the event loop: jobs wait here before they begin, and intake asks whether to pause."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from v2td import metrics
from v2td.breaker import CircuitBreaker
from v2td.config import PipelineSettings
from v2td.errors import PERHAPS_OURS, ErrorClass
from v2td.jobs import Failure, Outcome
from v2td.logs import get_logger

log = get_logger(__name__)

LOOK_SECONDS = 1.0  # how often who waits asks again, even if nobody calls


class Circuit:
    """Opens when too many jobs fail in ways that may be our fault."""

    def __init__(self, settings: PipelineSettings) -> None:
        self._breaker = CircuitBreaker(
            ratio=settings.breaker_ratio,
            seconds=settings.breaker_seconds,
            jobs=settings.breaker_jobs,
            pause_seconds=settings.breaker_pause_seconds,
        )
        self._changed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether intake is to pause."""
        is_open = self._breaker.open_until(time.monotonic()) is not None
        metrics.CIRCUIT_OPEN.set(is_open)
        return is_open

    async def admit(self) -> float:
        """Wait until a job may begin; returns when that was (time.monotonic())."""
        while not self._breaker.admit(now := time.monotonic()):
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._changed.wait()
        return now

    def judge(self, durable: Outcome, began: float) -> None:
        """Take note of a job's outcome; not of a redo that failed: its recording may be long gone, and we are well.

        Else a person who has old jobs done again would stop live traffic. What was cancelled says nothing of us.
        """
        if isinstance(durable, Failure) and (durable.redo is not None or durable.error_class is ErrorClass.CANCELLED):
            return
        failed = isinstance(durable, Failure) and durable.error_class in PERHAPS_OURS
        now = time.monotonic()
        if not self._breaker.observe(failed=failed, began=began, now=now):
            return
        self._changed.set()
        if (until := self._breaker.open_until(now)) is not None:
            log.error("too many jobs fail: intake pauses", seconds=round(until - now))
        else:
            log.info("jobs succeed again")
