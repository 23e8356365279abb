"""The tracker against a model that remembers everything: a list of records per partition, and nothing clever."""

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from v2td.intake.offsets import OffsetTracker, Partition, Ticket

PARTITIONS = [Partition("jobs", 0), Partition("jobs", 1), Partition("other", 0)]
JOBS_0 = PARTITIONS[0]


@dataclass
class Log:
    """What one partition saw in this epoch."""

    received: list[int] = field(default_factory=list)
    unfinished: set[int] = field(default_factory=set)
    committed: int | None = None


class TrackerMachine(RuleBasedStateMachine):
    """Assign, receive with gaps, resolve in any order, commit, revoke; stale tickets are kept and tried too."""

    tickets = Bundle("tickets")

    @initialize()
    def begin(self) -> None:
        self.tracker = OffsetTracker()
        self.epoch = 0
        self.logs: dict[Partition, Log] = {}

    @rule(partitions=st.sets(st.sampled_from(PARTITIONS)))
    def assign(self, partitions: set[Partition]) -> None:
        epoch = self.tracker.assign(partitions)
        assert epoch > self.epoch
        self.epoch = epoch
        self.logs = {partition: Log() for partition in partitions}

    @rule()
    def revoke(self) -> None:
        self.tracker.revoke()
        self.logs = {}

    @rule(
        target=tickets,
        partition=st.sampled_from(PARTITIONS),
        gaps=st.lists(st.integers(0, 3), min_size=1, max_size=8),
        first=st.integers(0, 2**40),
    )
    def receive(self, partition: Partition, gaps: list[int], first: int) -> object:
        log = self.logs.get(partition)
        tickets = []
        for gap in gaps:
            offset = log.received[-1] + 1 + gap if log and log.received else first + gap
            ticket = self.tracker.receive(partition, offset)
            assert (ticket is None) == (log is None)
            if ticket is not None and log is not None:
                assert ticket == Ticket(partition, offset, self.epoch)
                log.received.append(offset)
                log.unfinished.add(offset)
                tickets.append(ticket)
        return multiple(*tickets)

    @rule(ticket=consumes(tickets))
    def resolve(self, ticket: Ticket) -> None:
        log = self.logs.get(ticket.partition)
        current = log is not None and ticket.epoch == self.epoch
        before = self.tracker.committable()
        assert self.tracker.resolve(ticket) == current
        if log is not None and current:
            log.unfinished.discard(ticket.offset)
        else:
            assert self.tracker.committable() == before, "a stale ticket moved something"

    @rule()
    def commit(self) -> None:
        offsets = self.tracker.committable()
        self.tracker.committed(offsets)
        for partition, offset in offsets.items():
            self.logs[partition].committed = offset
        assert self.tracker.committable() == {}

    @invariant()
    def committable_is_the_contiguous_prefix(self) -> None:
        expected = {}
        for partition, log in self.logs.items():
            if log.received:
                offset = min(log.unfinished, default=log.received[-1] + 1)
                if offset != log.committed:
                    expected[partition] = offset
        assert self.tracker.committable() == expected

    @invariant()
    def counts_agree(self) -> None:
        assert self.tracker.last_committed() == {each: log.committed for each, log in self.logs.items()}
        for partition in PARTITIONS:
            log = self.logs.get(partition, Log())
            spread = log.received[-1] + 1 - min(log.unfinished) if log.unfinished else 0
            assert self.tracker.spread(partition) == spread


TestTracker = TrackerMachine.TestCase


def test_a_slow_record_holds_back_all_behind_it_and_then_lets_go_at_once() -> None:
    tracker = OffsetTracker()
    tracker.assign({JOBS_0})
    tickets = [tracker.receive(JOBS_0, offset) for offset in range(1000)]
    assert all(tickets)
    for ticket in tickets[1:]:
        assert ticket is not None
        tracker.resolve(ticket)
    assert tracker.committable() == {JOBS_0: 0}
    assert tracker.spread(JOBS_0) == 1000
    assert tickets[0] is not None
    tracker.resolve(tickets[0])
    assert tracker.committable() == {JOBS_0: 1000}
    assert tracker.spread(JOBS_0) == 0


def test_a_record_delivered_twice_in_an_epoch_waits_for_both_of_its_tickets() -> None:
    tracker = OffsetTracker()
    tracker.assign({JOBS_0})
    first, again = tracker.receive(JOBS_0, 5), tracker.receive(JOBS_0, 5)
    assert first is not None
    assert again is not None
    tracker.resolve(first)
    assert tracker.committable() == {JOBS_0: 5}
    tracker.resolve(again)
    assert tracker.committable() == {JOBS_0: 6}


def test_a_commit_of_a_partition_that_went_elsewhere_is_forgotten() -> None:
    tracker = OffsetTracker()
    tracker.assign({JOBS_0})
    tracker.committed({PARTITIONS[1]: 7})
    assert tracker.last_committed() == {JOBS_0: None}
