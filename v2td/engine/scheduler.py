"""Which window is next (pure): one queue of windows over all jobs, least attained service first, and none starves.

    rank(job) = (priority, windows of the job already served, arrival)        the least goes first
    owed      ← max(0, owed + share · w − w · [it repays])                    with each window of weight w that is taken

A batch is led by the window whose job has the least rank, followed by the next-ranked windows of an equal key. So a
voice message is never stuck behind a long recording, and a long recording spreads over all slots that are free.

Rank alone would let a long recording starve under a flood of messages. So `share` of the weight that is taken belongs
to the job that arrived first among those that wait, whatever its rank; `owed` is how far it is behind. A window repays
when it belongs to that job, and so does everything in a batch which that job leads because of what it is owed.
What is owed is repaid by the oldest job's

* riding in a batch of its key in place of a job that was served already, when it is owed a window,
* leading a batch in place of a job that was served already, when it is owed a whole batch,
* riding in place of a job that was not served yet, when it is owed two batches,
* leading in place of a job that was not served yet, when it is owed three.

An urgent leader (priority <= 2) takes only urgent windows along, whatever is owed. Only an overload comes to two
batches. So with spare capacity a new message waits for the first slot that comes free and no longer.

Bound: let L be the heaviest batch. `owed` never exceeds (3 + share) · L: it grows by at most share · L in a batch, and
from 3 L on every batch repays. Until the last of a job's waiting windows (of one key) is taken,

    weight taken from the whole queue  <=  (own + before + n · L + (3 + share) · L) / share

with `own` and `before` the waiting weight of the job and of the `n` jobs that arrived before it (each of which may end
in the middle of a batch that it leads). Divided by the weight that the slots take in a second, that is its time: a
recording of W windows ends within W / (share · capacity), and 3 / share + 2 batches more, under any flood.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
Rank = tuple[int, int, int]

URGENT = 2  # leaders of this priority or a more urgent one take only such windows along, so that their batch is small
ROUNDING = 1e-9  # sums of weights are rounded: ten times 0.1 fit into 1.0


@dataclass(slots=True)
class _Waiting(Generic[T]):
    window: T
    key: Hashable
    weight: float


@dataclass(slots=True)
class _Line(Generic[T]):
    """The windows of one job, in order; the first `returned` of them were put back."""

    priority: int
    arrival: int
    served: int = 0
    returned: int = 0
    waiting: deque[_Waiting[T]] = field(default_factory=deque)

    @property
    def rank(self) -> Rank:
        return self.priority, self.served, self.arrival


class WindowQueue(Generic[T]):
    """The waiting windows of all jobs, in sorted lists: thousands of jobs may wait.

    `oldest_share`, from 0 to less than 1, is what belongs to the job that arrived first.
    """

    def __init__(self, *, oldest_share: float) -> None:
        self._share = oldest_share
        self._owed = 0.0
        self._lines: dict[int, _Line[T]] = {}  # by arrival, which is a job's number
        self._arrivals = 0
        self._waiting: list[int] = []  # the arrivals of the lines that are not empty, sorted
        self._ranked: dict[Hashable, list[Rank]] = {}  # their ranks, sorted, by the key of their first window
        self._length = 0
        self._weight = 0.0

    def __len__(self) -> int:
        return self._length

    @property
    def weight(self) -> float:
        """Of all that waits; 1.0 is one full window of the encoder."""
        return self._weight

    def add_job(self, priority: int) -> int:
        """Make a place for a job's windows; returns its number."""
        self._arrivals += 1
        self._lines[self._arrivals] = _Line(priority, self._arrivals)
        return self._arrivals

    def put(self, job: int, window: T, *, key: Hashable, weight: float) -> None:
        """Add the next window of a job; `weight` is more than 0. KeyError when the job has left."""
        line = self._lines[job]
        self._insert(line, len(line.waiting), _Waiting(window, key, weight))

    def put_back(self, job: int, window: T, *, key: Hashable, weight: float) -> None:
        """Return a window that was taken but not served; nothing when the job has left.

        It goes before all of the job's windows but those that were put back already: the windows of a batch that
        are put back in their order keep it.
        """
        if (line := self._lines.get(job)) is not None:
            self._insert(line, line.returned, _Waiting(window, key, weight), served=-1)
            repaid = line.arrival == self._waiting[0]  # as _pop booked it, or nearly so
            self._owed = max(0.0, self._owed + weight * (repaid - self._share))
            line.returned += 1

    def take_batch(self, limit: float) -> list[T]:
        """Remove and return the windows that are next, all of one key; none when none waits.

        Their weights add up to at most `limit` (more than 0), but the first always goes, even if it is heavier.
        """
        if not self._waiting:
            return []
        leader = self._lines[min(ranks[0] for ranks in self._ranked.values())[2]]
        repaying = self._owed >= limit * (1 if leader.served else 3)
        if repaying:
            leader = self._lines[self._waiting[0]]
        key = leader.waiting[0].key
        batch = [leader.waiting[0].window]
        room = limit + ROUNDING - self._pop(leader, repaying)
        while (line := self._follower(key, leader.priority, limit)) is not None and line.waiting[0].weight <= room:
            batch.append(line.waiting[0].window)
            room -= self._pop(line, repaying)
        return batch

    def set_priority(self, job: int, priority: int) -> None:
        """Rank a job's windows by this priority from now on; KeyError when the job has left."""
        line = self._lines[job]
        self._unrank(line)
        line.priority = priority
        self._rank(line)

    def remove_job(self, job: int) -> list[T]:
        """Forget a job; returns its windows that still waited."""
        line = self._lines.pop(job, None)
        if line is None:
            return []
        self._unrank(line)
        self._count(-len(line.waiting), -sum(each.weight for each in line.waiting))
        return [each.window for each in line.waiting]

    def _follower(self, key: Hashable, leader_priority: int, limit: float) -> _Line[T] | None:
        """Return the line whose first window rides along next: by rank, or the oldest for what it is owed."""
        ranks = self._ranked.get(key)
        if ranks is None:
            return None
        lowest = URGENT if leader_priority <= URGENT else math.inf
        line = self._lines[ranks[0][2]]
        oldest = self._lines[self._waiting[0]]
        first = oldest.waiting[0]
        enough = first.weight if line.served else 2 * limit
        if first.key == key and oldest.priority <= lowest and self._owed >= enough:
            return oldest
        return line if line.priority <= lowest else None

    def _insert(self, line: _Line[T], position: int, entry: _Waiting[T], served: int = 0) -> None:
        self._unrank(line)
        line.served += served
        line.waiting.insert(position, entry)
        self._rank(line)
        self._count(1, entry.weight)

    def _pop(self, line: _Line[T], repaying: bool) -> float:
        """Remove the first window of a line and keep the books; returns its weight."""
        repaying = repaying or line.arrival == self._waiting[0]
        self._unrank(line)
        weight = line.waiting.popleft().weight
        line.served += 1
        line.returned = max(0, line.returned - 1)
        self._rank(line)
        self._owed = max(0.0, self._owed + weight * (self._share - repaying))
        self._count(-1, -weight)
        return weight

    def _count(self, windows: int, weight: float) -> None:
        self._length += windows
        self._weight += weight
        if not self._length:  # nobody is owed anything, and no rounding is left behind
            self._weight = self._owed = 0.0

    def _rank(self, line: _Line[T]) -> None:
        if line.waiting:
            insort(self._waiting, line.arrival)
            insort(self._ranked.setdefault(line.waiting[0].key, []), line.rank)

    def _unrank(self, line: _Line[T]) -> None:
        if line.waiting:
            del self._waiting[bisect_left(self._waiting, line.arrival)]
            key = line.waiting[0].key
            ranks = self._ranked[key]
            del ranks[bisect_left(ranks, line.rank)]
            if not ranks:
                del self._ranked[key]
