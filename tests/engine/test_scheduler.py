"""The queue against its definition, computed the slow way."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from v2td.engine.scheduler import URGENT, WindowQueue

KEYS = st.sampled_from(["vi", "en", ("beam", 5)])
WEIGHTS = st.sampled_from([0.125, 0.25, 0.5, 1.0, 1.5])  # sums are exact
PRIORITIES = st.integers(0, 9)
LIMITS = st.sampled_from([0.5, 1.0, 2.0, 4.0, 8.0])


@dataclass(frozen=True)
class Waiting:
    number: int
    job: int
    key: object
    weight: float


@dataclass
class Line:
    priority: int
    arrival: int
    served: int = 0
    returned: int = 0
    waiting: list[Waiting] = field(default_factory=list)

    @property
    def rank(self) -> tuple[int, int, int]:
        return self.priority, self.served, self.arrival


class Definition:
    """What the docstring of the scheduler says, without its data structures."""

    def __init__(self, share: float) -> None:
        self.share, self.owed = share, 0.0
        self.lines: dict[int, Line] = {}

    def heads(self) -> list[Line]:
        return [line for line in self.lines.values() if line.waiting]

    def take(self, line: Line, leads_by_debt: bool) -> Waiting:
        repays = leads_by_debt or line is min(self.heads(), key=lambda each: each.arrival)
        window = line.waiting.pop(0)
        line.served += 1
        line.returned = max(0, line.returned - 1)
        self.owed = max(0.0, self.owed + self.share * window.weight - window.weight * repays)
        if not self.heads():
            self.owed = 0.0
        return window

    def take_batch(self, limit: float) -> list[Waiting]:
        if not self.heads():
            return []
        leader = min(self.heads(), key=lambda line: line.rank)
        by_debt = self.owed >= (limit if leader.served else 3 * limit)
        if by_debt:
            leader = min(self.heads(), key=lambda line: line.arrival)
        batch = [self.take(leader, by_debt)]
        while True:
            candidates = [
                line
                for line in self.heads()
                if line.waiting[0].key == batch[0].key and (leader.priority > URGENT or line.priority <= URGENT)
            ]
            if not candidates:
                return batch
            oldest = min(self.heads(), key=lambda line: line.arrival)
            follower = min(candidates, key=lambda line: line.rank)
            if oldest in candidates and self.owed >= (oldest.waiting[0].weight if follower.served else 2 * limit):
                follower = oldest
            if sum(each.weight for each in batch) + follower.waiting[0].weight > limit:
                return batch
            batch.append(self.take(follower, by_debt))


class QueueMachine(RuleBasedStateMachine):
    @initialize(share=st.sampled_from([0.0, 0.125, 0.25, 0.5]))
    def begin(self, share: float) -> None:
        self.queue: WindowQueue[Waiting] = WindowQueue(oldest_share=share)
        self.definition = Definition(share)
        self.windows = 0
        self.taken: list[Waiting] = []
        self.served: dict[int, list[Waiting]] = {}

    def a_job(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.definition.lines)))

    @rule(priority=PRIORITIES)
    def add_job(self, priority: int) -> None:
        job = self.queue.add_job(priority)
        assert job not in self.definition.lines
        self.definition.lines[job] = Line(priority, job)  # numbers grow with arrival

    @precondition(lambda self: self.definition.lines)
    @rule(data=st.data(), key=KEYS, weights=st.lists(WEIGHTS, min_size=1, max_size=9))
    def put(self, data: st.DataObject, key: object, weights: list[float]) -> None:
        job = self.a_job(data)
        for weight in weights:
            self.windows += 1
            window = Waiting(self.windows, job, key, weight)
            self.queue.put(job, window, key=key, weight=weight)
            self.definition.lines[job].waiting.append(window)

    @rule(limit=LIMITS)
    def take_batch(self, limit: float) -> None:
        batch = self.queue.take_batch(limit)
        assert batch == self.definition.take_batch(limit)
        assert len({window.key for window in batch}) <= 1
        assert sum(window.weight for window in batch) <= limit or len(batch) == 1
        self.taken += batch

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        window = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        self.queue.put_back(window.job, window, key=window.key, weight=window.weight)
        if (line := self.definition.lines.get(window.job)) is not None:
            line.waiting.insert(line.returned, window)
            line.returned += 1
            line.served -= 1
            oldest = min(self.definition.heads(), key=lambda each: each.arrival)
            repaid = line is oldest
            owed = self.definition.owed + window.weight * (repaid - self.definition.share)
            self.definition.owed = max(0.0, owed)

    @precondition(lambda self: self.definition.lines)
    @rule(data=st.data(), priority=PRIORITIES)
    def set_priority(self, data: st.DataObject, priority: int) -> None:
        job = self.a_job(data)
        self.queue.set_priority(job, priority)
        self.definition.lines[job].priority = priority

    @precondition(lambda self: self.definition.lines)
    @rule(data=st.data())
    def remove_job(self, data: st.DataObject) -> None:
        job = self.a_job(data)
        assert self.queue.remove_job(job) == self.definition.lines.pop(job).waiting
        assert self.queue.remove_job(job) == []
        if not self.definition.heads():
            self.definition.owed = 0.0

    @invariant()
    def what_waits_is_counted(self) -> None:
        waiting = [window for line in self.definition.lines.values() for window in line.waiting]
        assert len(self.queue) == len(waiting)
        assert self.queue.weight == sum(window.weight for window in waiting)


TestQueue = QueueMachine.TestCase


def queue_of(*jobs: tuple[int, str, int], oldest_share: float = 0.0) -> WindowQueue[str]:
    """Jobs of (priority, name, windows), in order of arrival."""
    queue: WindowQueue[str] = WindowQueue(oldest_share=oldest_share)
    for priority, name, windows in jobs:
        put(queue, queue.add_job(priority), name * windows)
    return queue


def put(queue: WindowQueue[str], job: int, windows: str, key: str = "", weight: float = 1.0) -> None:
    for window in windows:
        queue.put(job, window, key=key, weight=weight)


def order(queue: WindowQueue[str], limit: float = 1.0) -> str:
    return " ".join(iter(lambda: "".join(queue.take_batch(limit)), ""))


def test_a_voice_message_overtakes_a_long_recording() -> None:
    queue = queue_of((5, "L", 100), oldest_share=0.2)
    queue.take_batch(8)
    put(queue, queue.add_job(5), "m")
    assert "".join(queue.take_batch(4)) == "mLLL"


def test_long_recordings_share_the_slots_evenly() -> None:
    assert order(queue_of((5, "a", 4), (5, "b", 4), (5, "c", 2)), limit=5) == "abcab cabab"


def test_a_more_urgent_job_is_served_whole_before_the_others() -> None:
    assert order(queue_of((5, "a", 2), (0, "u", 3), (9, "z", 1))) == "u u u a a z"


def test_an_urgent_leader_takes_only_urgent_windows_along() -> None:
    queue = queue_of((5, "a", 3), (2, "u", 2), (0, "v", 1), (3, "b", 1), oldest_share=0.5)
    assert order(queue, limit=8) == "vuu baaa"


def test_what_the_oldest_is_owed_does_not_slow_an_urgent_leader() -> None:
    queue = queue_of((5, "a", 3), (1, "u", 6), oldest_share=0.5)
    assert order(queue, limit=3) == "uuu uuu aaa"  # 3 are owed: not yet two batches, and the urgent job is served


def test_windows_of_another_key_do_not_ride_along() -> None:
    queue = queue_of((5, "a", 3))
    put(queue, queue.add_job(5), "eee", key="english")
    assert order(queue, limit=2) == "aa ee a e"


def test_a_window_heavier_than_the_limit_goes_alone() -> None:
    queue = queue_of()
    put(queue, queue.add_job(5), "aa", weight=2.0)
    assert order(queue, limit=1.0) == "a a"


def test_ten_tenths_are_a_full_window() -> None:
    queue = queue_of()
    for name in "abcdefghijk":
        put(queue, queue.add_job(5), name, weight=0.1)
    assert order(queue, limit=1.0) == "abcdefghij k"
    assert queue.weight == 0.0


def test_the_oldest_rides_in_place_of_served_jobs_as_soon_as_it_is_owed_a_window() -> None:
    queue = queue_of((9, "R", 50), (5, "n", 50), oldest_share=0.25)
    assert order(queue, limit=4).startswith("nnnn nRnn nRnn nRnn")


def test_the_oldest_rides_in_place_of_new_jobs_when_it_is_owed_two_batches() -> None:
    queue = queue_of((9, "R", 50), *((5, "m", 1) for _ in range(99)), oldest_share=0.25)
    assert order(queue, limit=4).split()[:11] == ["mmmm"] * 8 + ["mRmm"] * 3  # eight times a quarter of 4


def test_the_oldest_leads_in_place_of_a_served_job_when_it_is_owed_a_batch() -> None:
    queue = queue_of((9, "R", 8), oldest_share=0.25)
    put(queue, queue.add_job(5), "n" * 24, key="other")
    assert order(queue, limit=4).split()[:5] == ["nnnn"] * 4 + ["RRRR"]


def test_the_oldest_leads_in_place_of_a_new_job_when_it_is_owed_three_batches() -> None:
    queue = queue_of((9, "R", 50), oldest_share=0.25)
    for _ in range(100):
        put(queue, queue.add_job(5), "m", key="other")
    assert order(queue, limit=4).split()[:17] == ["mmmm"] * 12 + ["RRRR"] + ["mmmm"] * 3 + ["RRRR"]


def test_windows_that_are_put_back_in_their_order_keep_it() -> None:
    queue = queue_of()
    job = queue.add_job(5)
    put(queue, job, "abcdef")
    first, second = queue.take_batch(2), queue.take_batch(2)
    for window in first + second:
        queue.put_back(job, window, key="", weight=1.0)
    assert order(queue, limit=3) == "abc def"


def test_windows_that_are_put_back_do_not_count_as_served() -> None:
    queue: WindowQueue[str] = WindowQueue(oldest_share=0.0)
    first, second = queue.add_job(5), queue.add_job(5)
    put(queue, first, "aaaa")
    put(queue, second, "bbbb")
    for window in queue.take_batch(1):
        queue.put_back(first, window, key="", weight=1.0)
    assert order(queue, limit=4) == "abab abab"


def test_a_job_that_left_frees_its_windows_and_takes_none_back() -> None:
    queue: WindowQueue[str] = WindowQueue(oldest_share=0.2)
    job = queue.add_job(5)
    put(queue, job, "abcdef")
    assert queue.take_batch(2) == ["a", "b"]
    assert queue.remove_job(job) == ["c", "d", "e", "f"]
    queue.put_back(job, "a", key="", weight=1.0)
    assert (len(queue), queue.weight, queue.take_batch(8)) == (0, 0.0, [])
    with pytest.raises(KeyError):
        queue.put(job, "g", key="", weight=1.0)
