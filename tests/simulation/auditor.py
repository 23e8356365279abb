"""What must hold at every moment of every schedule, and at its end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from aiokafka import TopicPartition

from tests.simulation.clients import CLUSTER
from tests.simulation.kafka import Kafka, Record
from tests.simulation.loop import PROCESS, Process
from tests.simulation.postgres import Postgres, Row
from tests.simulation.rooms import text_of
from v2td.intake.offsets import OffsetTracker, Ticket
from v2td.jobs import Coordinates, SourceRecord
from v2td.messages.headers import REPLAY_OF
from v2td.store.rows import REQUESTED, FailureRow, TranscriptionRow

RETRY = "retry"
# What may become of a job of each fate.
ENDS = {
    "ok": {"transcription"},
    "flaky": {"transcription", "http_error"},
    "gone": {"not_found"},
    "crash": {"poison"},
    "unwritable": {"unwritable"},
    "bad": {"bad_message"},
}
_PASSED_OVER = re.compile(r"offsets? (?P<first>\d+)( to (?P<last>\d+))? cannot be read")


@dataclass(frozen=True, slots=True)
class Expected:
    """A job that was produced."""

    at: Coordinates
    fate: str
    seconds: float


@dataclass(slots=True)
class _Life:
    """What is known of one process. `assignment` is a number, and None from the end of a revocation to the next."""

    count: int = 0
    assignment: int | None = None
    known: dict[tuple[str, int], set[UUID]] = field(default_factory=dict)  # by the last look-up
    under_way: dict[Coordinates, asyncio.Task[Any]] = field(default_factory=dict)
    tickets: dict[Ticket, int | None] = field(default_factory=dict)  # with their assignments
    behind: dict[TopicPartition, int] = field(default_factory=dict)  # the offset behind the newest received
    unfinished: set[tuple[str, int, int]] = field(default_factory=set)  # received in this assignment
    commit_failures: int = 0  # before the revocation
    drained: bool = True  # everything under way, in the revocation


class Auditor:
    """Sees everything; `problems` is what it found."""

    def __init__(self, note: Callable[..., None]) -> None:
        self.problems: list[str] = []
        self.jobs: dict[UUID, Expected] = {}
        self.deleted: set[UUID] = set()  # by retention, perhaps unread
        self.redone = 0
        self.kafka: Kafka
        self.postgres: Postgres
        self._note = note
        self._lives: dict[Process | None, _Life] = {}
        self._checked: dict[TopicPartition, int] = {}
        self._passed_over: set[tuple[int, int]] = set()
        self._heard: set[tuple[str, int]] = set()

    def found(self, problem: str) -> None:
        self.problems.append(problem)
        self._note("PROBLEM", problem)

    def _life(self) -> _Life:
        return self._lives.setdefault(PROCESS.get(), _Life())

    # --- the services

    def expect(self, record: Record, fates: Collection[tuple[str, float]]) -> None:
        for index, (fate, seconds) in enumerate(fates):
            at = Coordinates(CLUSTER, record.topic, record.partition, record.offset, record.timestamp, index)
            self.jobs[at.row_id()] = Expected(at, fate, seconds)

    def on_commit(self, member: str, tp: TopicPartition, offset: int) -> None:
        """Everything below is durable."""
        log = self.kafka.logs[tp]
        if offset > log.end:
            self.found(f"{member} commits {offset} of {tp}, which ends at {log.end}")
        for each in range(max(self._checked.get(tp, 0), log.start), offset):
            record = log.records.get(each)
            if record is not None and record.headers:
                self._on_retry_passed(member, record, offset)
            elif record is not None and (missing := self._not_durable(record)):
                self.found(
                    f"{member} commits {tp.topic}/{tp.partition}/{offset}, but {missing} of {each} is not durable"
                )
            if each in log.corrupt and (tp.partition, each) not in self._passed_over:
                self.found(f"{member} commits {tp.partition}/{offset}, but nobody knows that {each} was not read")
        self._checked[tp] = max(self._checked.get(tp, 0), offset)

    def _not_durable(self, record: Record) -> list[str]:
        ids = [
            (row_id, each)
            for row_id, each in self.jobs.items()
            if (each.at.partition, each.at.offset) == (record.partition, record.offset)
        ]
        return [each.fate for row_id, each in ids if row_id not in self.postgres.rows]

    def on_row(self, row: Row) -> None:
        """It is one of ours, complete, and of a failure there is a letter."""
        job = self.jobs.get(row.id)
        where = f"{row.kafka_partition}/{row.kafka_offset}"
        if job is None:
            self._on_passed_over(row, where)
            return
        end = "transcription" if isinstance(row, TranscriptionRow) else row.error_class
        if end not in ENDS[job.fate]:
            self.found(f"{where} is {job.fate}, and ends as {end}: {getattr(row, 'reason', '')}")
        if isinstance(row, TranscriptionRow) and row.text != text_of(job.seconds):
            self.found(f"{where} says {row.text!r}")
        if isinstance(row, FailureRow) and row.replay_state == REQUESTED:
            if not self._retries(row.id, 0):
                self.found(f"{where} waits for a record that was never sent")
        elif isinstance(row, FailureRow) and not self._has_letter(row.id):
            self.found(f"{where} failed without a letter")

    def _retries(self, row_id: UUID, first: int) -> list[Record]:
        """The records that would do a failed job again, from an offset on."""
        wanted = (REPLAY_OF, str(row_id).encode())
        logs = [log for tp, log in self.kafka.logs.items() if tp.topic == RETRY]
        return [
            each for log in logs for each in log.records.values() if each.offset >= first and wanted in each.headers
        ]

    def _on_retry_passed(self, member: str, record: Record, offset: int) -> None:
        """A retry is done, or somebody else's; the last one of a job that waits is not passed over."""
        row_id = UUID(dict(record.headers)[REPLAY_OF].decode())
        if self.postgres.requested(row_id) is not None and not self._retries(row_id, offset):
            self.found(f"{member} commits {RETRY}/{offset}, but {row_id} still waits for {record.offset}")

    def _on_passed_over(self, row: Row, where: str) -> None:
        """Only a range of offsets that could not be read has a row without a job; nothing readable is in it."""
        said = _PASSED_OVER.match(row.reason) if isinstance(row, FailureRow) else None
        if said is None:
            self.found(f"row {row.id} of {where} belongs to no job")
            return
        log = self.kafka.logs[TopicPartition(row.topic, row.kafka_partition)]
        offsets = range(int(said["first"]), int(said["last"] or said["first"]) + 1)
        self._passed_over.update((row.kafka_partition, offset) for offset in offsets)
        if readable := [offset for offset in offsets if offset in log.records]:
            self.found(f"{where}: {said[0]}, but {readable} can")
        if not self._has_letter(row.id):
            self.found(f"{where} was passed over without a letter")

    def _has_letter(self, row_id: UUID) -> bool:
        wanted = ("v2td-id", str(row_id).encode())
        return any(wanted in letter["headers"] for letter in self.kafka.letters)

    def on_heard(self, url: str, window: int) -> None:
        self.redone += (url, window) in self._heard
        self._heard.add((url, window))

    # --- rebalances

    def on_revoking(self, consumer: Any) -> None:
        life = self._life()
        life.commit_failures, life.drained = consumer.commit_failures, True

    def on_revoked(self, consumer: Any, revoked: Collection[TopicPartition]) -> None:
        """When all was finished, all is committed: unless no commit could succeed."""
        life = self._life()
        life.assignment = None
        if life.drained and not life.unfinished and consumer.commit_failures == life.commit_failures:
            for tp in revoked:
                committed = self.kafka.committed.get(tp)
                if (behind := life.behind.get(tp)) is not None and (committed is None or committed.offset < behind):
                    self.found(f"{tp.partition} was revoked, finished to {behind} and committed to {committed}")
        life.behind.clear()
        life.unfinished.clear()

    def on_assigned(self) -> None:
        life = self._life()
        life.count += 1
        life.assignment = life.count

    def watch_receive(self, receive: Callable[..., Ticket | None]) -> Callable[..., Ticket | None]:
        def watched(tracker: OffsetTracker, partition: Any, offset: int) -> Ticket | None:
            ticket = receive(tracker, partition, offset)
            life = self._life()
            if ticket is not None:
                life.tickets[ticket] = life.assignment
                life.behind[TopicPartition(*partition)] = offset + 1
                life.unfinished.add((*partition, offset))
            return ticket

        return watched

    def watch_resolve(self, resolve: Callable[..., bool]) -> Callable[..., bool]:
        def watched(tracker: OffsetTracker, ticket: Ticket) -> bool:
            resolved = resolve(tracker, ticket)
            life = self._life()
            if resolved and (life.assignment is None or life.tickets.get(ticket) != life.assignment):
                self.found(f"{ticket} resolved after the fence")
            return resolved

        return watched

    # --- work

    def watch_look_ups(self, look_up: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def watched(cluster: str, topic: str, partition: int, first: int) -> Any:
            life = self._life()
            life.known.pop((topic, partition), None)
            found = await look_up(cluster, topic, partition, first)
            life.known[topic, partition] = {row_id for ids in found.values() for row_id in ids}
            return found

        return watched

    def watch_work(self, handle: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        """No record twice at once, and none of which we were told that it is done."""

        async def watched(at: Coordinates, record: SourceRecord, durable: frozenset[UUID]) -> None:
            life, task = self._life(), asyncio.current_task()
            assert task is not None
            other = life.under_way.get(at)
            if other is not None and not other.cancelling():
                self.found(f"{at.partition}/{at.offset} is begun twice at once")
            told = life.known.get((at.topic, at.partition), set())
            if at.row_id() in told and at.row_id() not in durable:
                self.found(f"{at.partition}/{at.offset} is done again, though the look-up told")
            life.under_way[at] = task
            try:
                await handle(at, record, durable)
                life.unfinished.discard((at.topic, at.partition, at.offset))
            finally:
                if life.under_way.get(at) is task:
                    del life.under_way[at]

        return watched

    def watch_saving(self, save: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """It is called when a drain has not finished everything."""

        async def watched() -> None:
            self._life().drained = False
            await save()

        return watched

    # --- the end

    def unfinished(self) -> list[str]:
        """What is missing for the schedule to be over."""
        missing = [
            f"{each.at.partition}/{each.at.offset} ({each.fate})"
            for row_id, each in self.jobs.items()
            if row_id not in self.postgres.rows and row_id not in self.deleted
        ]
        missing += [
            f"{row_id} waits for its retry" for row_id in self.jobs if self.postgres.requested(row_id) is not None
        ]
        for tp, log in self.kafka.logs.items():
            missing += [
                f"{tp.partition}/{each} (corrupt)"
                for each in log.corrupt
                if (tp.partition, each) not in self._passed_over
            ]
            last, committed = max({*log.records, *log.corrupt}, default=-1), self.kafka.committed.get(tp)
            if last >= 0 and (committed is None or committed.offset <= last):
                missing.append(f"{tp.partition} is committed to {committed and committed.offset}, and ends at {last}")
        return missing
