"""The queue against its definition: the least of (priority, windows served, arrival) among the jobs that wait."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from v2td.engine.scheduler import WindowQueue


@dataclass
class Line:
    priority: int
    arrival: int
    served: int = 0
    waiting: list[int] = field(default_factory=list)


class QueueMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.queue: WindowQueue[int] = WindowQueue()
        self.lines: dict[int, Line] = {}
        self.windows = 0
        self.taken: list[tuple[int, int]] = []

    @rule(priority=st.integers(0, 9))
    def add_job(self, priority: int) -> None:
        job = self.queue.add_job(priority)
        assert job not in self.lines
        self.lines[job] = Line(priority, len(self.lines))

    @precondition(lambda self: self.lines)
    @rule(data=st.data(), count=st.integers(1, 5))
    def put(self, data: st.DataObject, count: int) -> None:
        job = data.draw(st.sampled_from(sorted(self.lines)))
        for _ in range(count):
            self.windows += 1
            self.queue.put(job, self.windows)
            self.lines[job].waiting.append(self.windows)

    @rule()
    def take(self) -> None:
        waiting = [(line.priority, line.served, job) for job, line in self.lines.items() if line.waiting]
        window = self.queue.take()
        if not waiting:
            assert window is None
            return
        job = min(waiting)[2]  # keys grow with arrival
        assert window == self.lines[job].waiting.pop(0)
        self.lines[job].served += 1
        self.taken.append((job, window))

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        job, window = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        self.queue.put_back(job, window)
        if (line := self.lines.get(job)) is not None:
            line.waiting.insert(0, window)
            line.served -= 1

    @precondition(lambda self: self.lines)
    @rule(data=st.data())
    def remove_job(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(sorted(self.lines)))
        assert self.queue.remove_job(job) == self.lines.pop(job).waiting
        assert self.queue.remove_job(job) == []

    @invariant()
    def length_is_what_waits(self) -> None:
        assert len(self.queue) == sum(len(line.waiting) for line in self.lines.values())


TestQueue = QueueMachine.TestCase


def queue_of(*jobs: tuple[int, str, int]) -> WindowQueue[str]:
    """Jobs of (priority, name, windows), in order of arrival."""
    queue: WindowQueue[str] = WindowQueue()
    for priority, name, windows in jobs:
        job = queue.add_job(priority)
        for _ in range(windows):
            queue.put(job, name)
    return queue


def order(queue: WindowQueue[str]) -> str:
    return "".join(iter(queue.take, None))


def test_a_voice_message_overtakes_a_long_recording() -> None:
    queue = queue_of((5, "L", 100))
    for _ in range(10):
        queue.take()
    queue.put(queue.add_job(5), "m")
    assert queue.take() == "m"


def test_long_recordings_share_the_slots_evenly() -> None:
    assert order(queue_of((5, "a", 4), (5, "b", 4), (5, "c", 2))) == "abcabcabab"


def test_a_more_urgent_job_is_served_whole_before_the_others() -> None:
    assert order(queue_of((5, "a", 2), (0, "u", 3), (9, "z", 1))) == "uuuaaz"


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 6)), max_size=8))
def test_everything_comes_out_once(jobs: list[tuple[int, int]]) -> None:
    queue = queue_of(*((priority, str(number), windows) for number, (priority, windows) in enumerate(jobs)))
    served = order(queue)
    assert all(served.count(str(number)) == windows for number, (_priority, windows) in enumerate(jobs))
    assert len(queue) == 0
