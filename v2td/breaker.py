"""A circuit breaker on the share of jobs that fail (pure): when it opens, the fault is probably ours.

Closed, it watches the outcomes of the last `seconds`. Open, it pauses; then it is half open, and judges by the first
PROBES outcomes of jobs that were begun since: closed again, or another pause, twice as long.
After M. Nygard, "Release It!".
"""

from __future__ import annotations

from collections import deque

PROBES = 10
LONGEST_PAUSE_SECONDS = 900.0


class CircuitBreaker:
    """Opens when more than `ratio` of at least `jobs` outcomes within `seconds` are failures. Times are monotonic."""

    def __init__(self, *, ratio: float, seconds: float, jobs: int, pause_seconds: float) -> None:
        self._ratio = ratio
        self._seconds = seconds
        self._jobs = jobs
        self._first_pause = pause_seconds
        self._pause = pause_seconds
        self._outcomes: deque[tuple[float, bool]] = deque()
        self._failures = 0
        self._until = 0.0  # the end of the last pause
        self._half_open = False

    def open_until(self, now: float) -> float | None:
        """Return when the pause ends; None when there is none."""
        return self._until if now < self._until else None

    def observe(self, *, failed: bool, began: float, now: float) -> bool:
        """Take note of a job that began at `began`; True when it opens the circuit."""
        if began < self._until:  # what was under way when it opened says nothing new
            return False
        self._outcomes.append((now, failed))
        self._failures += failed
        while self._outcomes[0][0] < now - self._seconds:
            self._failures -= self._outcomes.popleft()[1]
        count = len(self._outcomes)
        if count < (PROBES if self._half_open else self._jobs):
            return False
        if self._failures <= self._ratio * count:
            self._half_open, self._pause = False, self._first_pause
            return False
        self._until = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        self._half_open = True
        self._outcomes.clear()
        self._failures = 0
        return True
