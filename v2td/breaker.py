"""A circuit breaker on the share of jobs that fail (pure): when it opens, the fault is probably ours.

Closed, it watches the outcomes of the last `seconds`. Open, it admits no job. After the pause it is half open: it
admits a few jobs, and judges by them: closed again, or another pause, twice as long. After M. Nygard, "Release It!".
"""

from __future__ import annotations

from collections import deque

PROBES = 10
LONGEST_PAUSE_SECONDS = 900.0


class CircuitBreaker:
    """Opens when more than `ratio` of at least `jobs` outcomes within `seconds` are failures. Times are monotonic.

    `probes` are the jobs that tell whether to close it again.
    """

    def __init__(self, *, ratio: float, seconds: float, jobs: int, pause_seconds: float, probes: int = PROBES) -> None:
        self._ratio = ratio
        self._seconds = seconds
        self._jobs = jobs
        self._most_probes = probes
        self._first_pause = pause_seconds
        self._pause = pause_seconds
        self._outcomes: deque[tuple[float, bool]] = deque()
        self._failures = 0
        self._until = 0.0  # the end of the last pause
        self._half_open = False
        self._probes = 0  # admitted since then
        self._probing = 0.0  # when the last of them were let in

    def open_until(self, now: float) -> float | None:
        """Return when the pause ends; None when there is none."""
        return self._until if now < self._until else None

    def admit(self, now: float) -> bool:
        """Whether a job may begin now; half open, the answer counts it as a probe."""
        if now < self._until:
            return False
        if not self._half_open:
            return True
        if self._probes == self._most_probes and now >= self._probing + self._first_pause:
            self._probes = 0  # those before are long recordings, or went elsewhere
        if self._probes == self._most_probes:
            return False
        self._probes += 1
        self._probing = now
        return True

    def observe(self, *, failed: bool, began: float, now: float, within: float = 0.0) -> bool:
        """Take note of the end of a job that was admitted at `began`; True when it opens or closes the circuit.

        `within` are the seconds over which such jobs count, where that is longer than for all of them.
        """
        if began < self._until:  # what was under way when it opened says nothing new
            return False
        self._outcomes.append((now, failed))
        self._failures += failed
        while self._outcomes[0][0] < now - max(self._seconds, within):
            self._failures -= self._outcomes.popleft()[1]
        if self._half_open:
            return self._judge_probes(now)
        count = len(self._outcomes)
        if count < self._jobs or self._failures <= self._ratio * count:
            return False
        self._open(now)
        return True

    def _judge_probes(self, now: float) -> bool:
        """Decide as soon as the probes that are still under way cannot change it."""
        if self._failures > self._ratio * self._most_probes:
            self._open(now)
        elif len(self._outcomes) - self._failures >= (1 - self._ratio) * self._most_probes:
            self._half_open, self._pause = False, self._first_pause
        else:
            return False
        return True

    def _open(self, now: float) -> None:
        self._until = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        self._half_open = True
        self._probes = 0
        self._outcomes.clear()
        self._failures = 0
