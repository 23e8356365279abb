"""Which window is next (pure): one queue of windows over all jobs, least attained service first.

Rank = (priority, windows of the job already served, arrival of the job): a voice message is never stuck behind
a long recording, and a long recording spreads over all slots that are free.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _JobLine(Generic[T]):
    priority: int
    arrival: int
    served: int = 0
    waiting: deque[T] = field(default_factory=deque)

    @property
    def rank(self) -> tuple[int, int, int]:
        return self.priority, self.served, self.arrival


class WindowQueue(Generic[T]):
    """The waiting windows of all jobs. Choosing takes time linear in the number of jobs, a few dozen."""

    def __init__(self) -> None:
        self._jobs: dict[int, _JobLine[T]] = {}
        self._arrivals = 0
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add_job(self, priority: int) -> int:
        """Make a place for a job's windows; returns its key."""
        self._arrivals += 1
        self._jobs[self._arrivals] = _JobLine(priority, self._arrivals)
        return self._arrivals

    def put(self, job: int, window: T) -> None:
        """Add the next window of a job."""
        self._jobs[job].waiting.append(window)
        self._length += 1

    def put_back(self, job: int, window: T) -> None:
        """Return a window that was taken but not served; nothing when the job has left."""
        if (line := self._jobs.get(job)) is not None:
            line.waiting.appendleft(window)
            line.served -= 1
            self._length += 1

    def take(self) -> T | None:
        """Remove and return the window that is next; None when none waits."""
        line = min((each for each in self._jobs.values() if each.waiting), key=lambda each: each.rank, default=None)
        if line is None:
            return None
        line.served += 1
        self._length -= 1
        return line.waiting.popleft()

    def remove_job(self, job: int) -> list[T]:
        """Forget a job; returns its windows that still waited."""
        line = self._jobs.pop(job, None)
        if line is None:
            return []
        self._length -= len(line.waiting)
        return list(line.waiting)
