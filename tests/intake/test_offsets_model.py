"""The tracker, and the fence that its epochs are, against a model that only remembers everything that happened."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from v2td.intake.offsets import OffsetTracker, Partition, Ticket

PARTITIONS = [Partition("jobs", 0), Partition("jobs", 1), Partition("other", 0)]


@dataclass(frozen=True)
class Event:
    """Something that happened: assign, expect, begin again, receive, resolve, committed; `at` is an offset."""

    kind: str
    partition: Partition
    at: int = -1
    epoch: int = -1


class TrackerMachine(RuleBasedStateMachine):
    """Anything in any order: gaps, offsets that go back, stale tickets, tickets resolved twice."""

    tickets = Bundle("tickets")

    @initialize()
    def begin(self) -> None:
        self.tracker = OffsetTracker()
        self.events: list[Event] = []  # of partitions that are ours, in this assignment
        self.ours: set[Partition] = set()
        self.epochs: set[int] = set()

    def since_its_epoch(self, partition: Partition) -> list[Event]:
        """What happened to the partition since it was assigned or began again."""
        mine = [event for event in self.events if event.partition == partition]
        begins = [place for place, event in enumerate(mine) if event.kind in ("assign", "begin again")]
        return mine[begins[-1] :] if begins else []

    def expected(self, partition: Partition) -> int | None:
        places = (e.at + (e.kind == "receive") for e in self.since_its_epoch(partition) if e.kind in PLACING)
        return list(places)[-1:][0] if self.placed(partition) else None

    def placed(self, partition: Partition) -> bool:
        return any(event.kind in PLACING for event in self.since_its_epoch(partition))

    def unfinished(self, partition: Partition) -> list[int]:
        events = self.since_its_epoch(partition)
        resolved = {event.at for event in events if event.kind == "resolve"}
        return [event.at for event in events if event.kind == "receive" and event.at not in resolved]

    def committed(self, partition: Partition) -> int | None:
        return next((e.at for e in reversed(self.since_its_epoch(partition)) if e.kind == "committed"), None)

    @rule(partitions=st.sets(st.sampled_from(PARTITIONS)))
    def assign(self, partitions: set[Partition]) -> None:
        epoch = self.tracker.assign(partitions)
        assert epoch > max(self.epochs, default=0)
        self.epochs.add(epoch)
        self.ours = partitions
        self.events = [Event("assign", each) for each in partitions]

    @rule(partition=st.sampled_from(PARTITIONS))
    def take(self, partition: Partition) -> None:
        self.tracker.take(partition)
        self.ours = self.ours | {partition}
        self.events = [*(each for each in self.events if each.partition != partition), Event("assign", partition)]

    @rule(partition=st.sampled_from(PARTITIONS))
    def drop(self, partition: Partition) -> None:
        self.tracker.drop(partition)
        self.ours = self.ours - {partition}
        self.events = [each for each in self.events if each.partition != partition]

    @rule()
    def revoke(self) -> None:
        self.tracker.revoke()
        self.ours = set()
        self.events = []

    @rule(partition=st.sampled_from(PARTITIONS), offset=st.integers(0, 50))
    def expect(self, partition: Partition, offset: int) -> None:
        if not self.unfinished(partition):  # as it is used: where reading begins
            self.tracker.expect(partition, offset)
            self.note("expect", partition, offset)

    @rule(partition=st.sampled_from(PARTITIONS))
    def begin_again(self, partition: Partition) -> None:
        self.tracker.begin_again(partition)
        self.note("begin again", partition)

    @rule(
        target=tickets,
        partition=st.sampled_from(PARTITIONS),
        gaps=st.lists(st.integers(0, 3), min_size=1, max_size=8),
        back=st.integers(-40, 0) | st.just(0),
    )
    def receive(self, partition: Partition, gaps: list[int], back: int) -> object:
        received = []
        for place, gap in enumerate(gaps):
            expected = self.expected(partition)
            offset = max(0, (expected or 0) + gap + (back if place == 0 else 0))
            ticket = self.tracker.receive(partition, offset)
            assert (ticket is not None) == (partition in self.ours)
            if ticket is None:
                continue
            if expected is not None and offset < expected:
                self.note("begin again", partition)
                assert ticket.epoch > max(self.epochs, default=0), "what comes again is of a new epoch"
            self.epochs.add(ticket.epoch)
            self.note("receive", partition, offset, ticket.epoch)
            received.append(ticket)
        return multiple(*received)

    @rule(ticket=consumes(tickets))
    def resolve(self, ticket: Ticket) -> None:
        self.try_to_resolve(ticket)

    @rule(ticket=tickets)
    def resolve_and_keep(self, ticket: Ticket) -> None:
        """As if another of its copies ended later."""
        self.try_to_resolve(ticket)

    def try_to_resolve(self, ticket: Ticket) -> None:
        events = self.since_its_epoch(ticket.partition)
        if Event("resolve", ticket.partition, ticket.offset, ticket.epoch) in events:
            return  # a ticket is handed back once
        current = Event("receive", ticket.partition, ticket.offset, ticket.epoch) in events
        before = self.tracker.committable()
        assert self.tracker.resolve(ticket) == current
        if current:
            self.note("resolve", ticket.partition, ticket.offset, ticket.epoch)
        else:
            assert self.tracker.committable() == before, "a stale ticket moved something"

    @rule()
    def commit(self) -> None:
        offsets = self.tracker.committable()
        self.tracker.committed(offsets)
        for partition, offset in offsets.items():
            self.note("committed", partition, offset)
        assert self.tracker.committable() == {}

    def note(self, kind: str, partition: Partition, at: int = -1, epoch: int = -1) -> None:
        if partition in self.ours:
            self.events.append(Event(kind, partition, at, epoch))

    @invariant()
    def committable_is_the_oldest_unfinished_or_what_comes_next(self) -> None:
        expected = {}
        for partition in self.ours:
            offset = min(self.unfinished(partition), default=self.expected(partition))
            if offset is not None and offset != self.committed(partition):
                expected[partition] = offset
        assert self.tracker.committable() == expected

    @invariant()
    def the_rest_agrees(self) -> None:
        assert self.tracker.last_committed() == {each: self.committed(each) for each in self.ours}
        for partition in PARTITIONS:
            expected = self.expected(partition)
            assert self.tracker.expected(partition) == expected
            unfinished = self.unfinished(partition)
            assert self.tracker.spread(partition) == (expected or 0) - min(unfinished, default=expected or 0)


PLACING = ("expect", "receive")


@dataclass
class Member:
    """One instance: its tracker, what it works on, and the commits it has sent that have not arrived."""

    tracker: OffsetTracker = field(default_factory=OffsetTracker)
    position: int | None = None  # None: the partition is not ours
    generation: int = 0
    under_way: list[Ticket] = field(default_factory=list)
    sent: list[tuple[int, int]] = field(default_factory=list)  # generation, offset


class FenceMachine(RuleBasedStateMachine):
    """One partition wanders between two members, which crash, give up in order, or are thrown out without knowing it.

    The model is the broker's log, the set of durable offsets, and the list of all that was committed.
    """

    @initialize(end=st.integers(1, 12))
    def begin(self, end: int) -> None:
        self.end = end
        self.members = [Member(), Member()]
        self.generation = 0
        self.durable: set[int] = set()
        self.commits: list[int] = []

    @property
    def committed(self) -> int:
        return self.commits[-1] if self.commits else 0

    member = st.integers(0, 1)

    @rule(number=st.integers(1, 5))
    def produce(self, number: int) -> None:
        self.end += number

    @rule(to=member, knows=st.booleans())
    def rebalance(self, to: int, knows: bool) -> None:
        """The partition goes to a member; the other one hears of it, or was silent and goes on."""
        self.generation += 1
        for number, each in enumerate(self.members):
            if number == to:
                each.generation = self.generation
                each.tracker.assign({PARTITIONS[0]})
                each.tracker.expect(PARTITIONS[0], self.committed)
                each.tracker.committed({PARTITIONS[0]: self.committed})
                each.position = self.committed
            elif knows:
                each.generation = self.generation
                each.tracker.revoke()
                each.position = None

    @rule(of=member)
    def crash(self, of: int) -> None:
        sent = self.members[of].sent  # it is on the wire
        self.members[of] = Member(sent=sent)

    @rule(of=member, number=st.integers(1, 6))
    def poll(self, of: int, number: int) -> None:
        member = self.members[of]
        for _ in range(number):
            if member.position is not None and member.position < self.end:
                ticket = member.tracker.receive(PARTITIONS[0], member.position)
                assert ticket is not None
                member.under_way.append(ticket)
                member.position += 1

    @precondition(lambda self: any(each.under_way for each in self.members))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """A record becomes durable, and is resolved, in whatever epoch it was received."""
        member = data.draw(st.sampled_from([each for each in self.members if each.under_way]))
        ticket = data.draw(st.sampled_from(member.under_way))
        member.under_way.remove(ticket)
        self.durable.add(ticket.offset)
        member.tracker.resolve(ticket)

    @rule(of=member)
    def send_commit(self, of: int) -> None:
        member = self.members[of]
        for offset in member.tracker.committable().values():
            member.sent.append((member.generation, offset))

    @rule(of=member)
    def commit_arrives(self, of: int) -> None:
        self.arrive(self.members[of])

    def arrive(self, member: Member) -> None:
        if member.sent:
            generation, offset = member.sent.pop(0)
            if generation == self.generation:
                self.commits.append(offset)
                member.tracker.committed({PARTITIONS[0]: offset})

    @invariant()
    def everything_below_each_commit_was_durable(self) -> None:
        assert set(range(self.committed)) <= self.durable

    def teardown(self) -> None:
        """Whatever happened: one member, left alone, finishes everything and commits it."""
        self.rebalance(to=0, knows=True)
        self.poll(of=0, number=self.end)
        last = self.members[0]
        while last.under_way:
            ticket = last.under_way.pop()
            self.durable.add(ticket.offset)
            last.tracker.resolve(ticket)
        self.send_commit(of=0)
        for _ in range(len(last.sent)):
            self.arrive(last)
        assert self.committed == self.end
        assert self.durable >= set(range(self.end))


def _cases(*machines: type[RuleBasedStateMachine]) -> Iterator[type]:
    for machine in machines:
        case = machine.TestCase
        case.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
        yield case


TestTracker, TestFence = _cases(TrackerMachine, FenceMachine)
