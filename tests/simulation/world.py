"""One schedule: daemons, a producer and a chain of faults, all drawn from a seed; then quiet, and the reckoning."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random as global_random
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import structlog
from aiokafka import TopicPartition

from tests.simulation import rooms
from tests.simulation.auditor import Auditor
from tests.simulation.daemon import Daemon, live, real_parts_on
from tests.simulation.kafka import Kafka, Record
from tests.simulation.loop import EPOCH, PROCESS, SERVER, Process, StuckError, VirtualLoop, virtual_time
from tests.simulation.network import Network
from tests.simulation.postgres import Postgres
from tests.simulation.settings import TOPIC, draw_settings

FAULTY_SECONDS = 30.0  # after which nothing goes wrong any more
QUIET_SECONDS = 150.0  # in which all must end
WORK_SECONDS = 15.0  # of transcribing, all jobs one after the other on the slots of one daemon
EXIT_SECONDS = 20.0  # from SIGTERM, when nothing goes wrong
FATES = ("ok", "ok", "ok", "ok", "ok", "flaky", "flaky", "gone", "crash", "unwritable", "bad")
FAULTS = ("kill", "kill", "term", "freeze", "visit", "visit", "kafka", "postgres", "stall", "retention", "join")


@dataclass(slots=True)
class Outcome:
    """What came of a schedule."""

    seed: int
    problems: list[str] = field(default_factory=list)
    jobs: int = 0
    redone: int = 0
    seconds: float = 0.0  # virtual
    trace: list[tuple[Any, ...]] = field(default_factory=list)


class World:
    """Everything there is in one schedule."""

    def __init__(self, seed: int, loop: VirtualLoop, outcome: Outcome) -> None:
        self.random = random = Random(seed)
        self.loop = loop
        self.outcome = outcome
        self.network = Network(loop, Random(random.random()), 0.01, random.choice((0.0, 0.0, 0.01, 0.05)))
        self.auditor = Auditor(self.note)
        partitions = [TopicPartition(TOPIC, each) for each in range(random.randint(1, 4))]
        self.settings = draw_settings(random)
        kafka = self.settings.kafka
        if kafka.retry_topic is not None:
            partitions.append(TopicPartition(kafka.retry_topic, 0))
        self.kafka = self.auditor.kafka = Kafka(
            loop,
            partitions,
            session_seconds=kafka.session_timeout_seconds,
            rebalance_seconds=kafka.rebalance_timeout_seconds,
            on_commit=self.auditor.on_commit,
            note=self.note,
        )
        self.postgres = self.auditor.postgres = Postgres(self.network, self.auditor.on_row, self.note)
        self.jobs = [tp for tp in partitions if tp.topic == TOPIC]
        self.static = random.random() < 0.4
        self.corrupt = random.choice((0.0, 0.0, 0.05, 0.2))  # a share of the records comes behind such offsets
        self.longest = random.choice((1.0, 4.0, 15.0))
        self.slots = random.randint(1, 4)
        self.daemons: dict[str, Daemon] = {}
        self.lives = 0
        self.trouble = self.network.trouble

    def note(self, *what: Any) -> None:
        self.outcome.trace.append((round(self.loop.now, 3), *what))

    async def play(self) -> None:
        """The schedule itself."""
        for number in range(self.random.randint(1, 3)):
            self.start(f"d{number}")
        async with asyncio.TaskGroup() as group:
            group.create_task(self.produce())
            for _ in range(self.random.choice((0, 2, 4, 8))):
                group.create_task(self.fault(self.random.uniform(0.5, FAULTY_SECONDS), self.random.choice(FAULTS)))
            await asyncio.sleep(FAULTY_SECONDS)
        self.network.trouble = 0.0
        self.note("quiet")
        for name, daemon in list(self.daemons.items()):
            if daemon.task.done():
                self.start(name)
        await self.until_over()
        await self.leave()

    async def until_over(self) -> None:
        end = self.loop.now + QUIET_SECONDS
        while missing := self.auditor.unfinished():
            self.look_after_daemons()
            if self.auditor.problems:
                return
            if self.loop.now > end:
                self.auditor.found(f"not over after {QUIET_SECONDS:g} quiet seconds: {missing[:5]}")
                return
            await asyncio.sleep(1)

    async def leave(self) -> None:
        """SIGTERM for all."""
        daemons = [each for each in self.daemons.values() if not each.task.done()]
        for daemon in daemons:
            daemon.stop.set()
        if daemons:
            await asyncio.wait([each.task for each in daemons], timeout=EXIT_SECONDS)
        for daemon in daemons:
            if not daemon.task.done():
                self.auditor.found(f"{daemon.process.name} did not leave in {EXIT_SECONDS:g} s")
        self.look_after_daemons()

    def look_after_daemons(self) -> None:
        for name, daemon in self.daemons.items():
            if daemon.task.done() and (error := daemon.task.exception()) is not None:
                self.auditor.found(f"{name} ended with {error!r}")

    def start(self, name: str) -> Daemon:
        """Begin a life of a daemon."""
        self.lives += 1
        self.note("start", name)
        process = Process(name, self.loop)
        settings = self.settings
        if self.static:
            kafka = settings.kafka.model_copy(update={"group_instance_id": name})
            settings = settings.model_copy(update={"kafka": kafka})
        random = Random(self.random.random())
        simulated = rooms.Rooms(random, self.slots, self.trouble, self.auditor.on_heard)
        daemon = Daemon(process, None, asyncio.Event())  # type: ignore[arg-type]  # the task comes next
        daemon.task = process.run(live(daemon, settings, self.postgres, simulated, auditor=self.auditor, random=random))
        daemon.task.add_done_callback(lambda _: process.kill(), context=SERVER)  # nothing outlives its main task
        self.daemons[name] = daemon
        return daemon

    async def produce(self) -> None:
        at_once = min(self.slots, self.settings.pipeline.max_in_flight)
        count = self.random.randint(3, max(4, min(40, int(2 * WORK_SECONDS * at_once / self.longest))))
        pace = self.random.choice((0.0, 0.8 * FAULTY_SECONDS / count))
        for number in range(count):
            tp = self.random.choice(self.jobs)
            if self.random.random() < self.corrupt:
                self.kafka.spoil(tp, self.random.randint(1, 3))
            offset = self.kafka.logs[tp].end + (self.random.randint(1, 3) if self.random.random() < 0.1 else 0)
            value, fates = self.message(number)
            record = Record(TOPIC, tp.partition, offset, int((EPOCH + self.loop.now) * 1000), None, value)
            self.auditor.expect(record, fates)
            self.kafka.append(record)
            await asyncio.sleep(pace * self.random.uniform(0, 2))

    def message(self, number: int) -> tuple[bytes, list[tuple[str, float]]]:
        """Return a record's value, and what it asks for."""
        fate, seconds = self.random.choice(FATES), round(self.random.uniform(0.05, self.longest), 2)
        if fate == "bad":
            return b"{", [("bad", 0.0)]
        if self.random.random() < 0.1:
            fates = [("ok", round(self.random.uniform(0.05, self.longest), 2)) for _ in range(3)]
            keys = [rooms.url_of(f"{number}-{each}", at, "ok").rpartition("/")[2] for each, (_, at) in enumerate(fates)]
            entries = [
                {
                    "eventName": "s3:ObjectCreated:Put",
                    "eventSource": "minio:s3",
                    "s3": {"bucket": {"name": "bucket"}, "object": {"key": key}},
                }
                for key in keys
            ]
            return json.dumps({"Records": entries}).encode(), fates
        return json.dumps({"audio_url": rooms.url_of(str(number), seconds, fate)}).encode(), [(fate, seconds)]

    async def fault(self, when: float, kind: str) -> None:
        random = self.random
        target = random.choice(sorted(self.daemons))
        length = random.uniform(0.2, 10.0)
        await asyncio.sleep(when)
        self.note("fault", kind, target, round(length, 2))
        daemon = self.daemons[target]
        match kind:
            case "kill":
                daemon.process.kill()
                await asyncio.sleep(length)
                self.restart(target, daemon)
            case "term":
                daemon.stop.set()
                await asyncio.wait([daemon.task], timeout=length + EXIT_SECONDS)
                self.restart(target, daemon)
            case "freeze":
                daemon.process.freeze()
                await asyncio.sleep(length * 2)
                daemon.process.thaw()
            case "visit" | "join":
                name = f"v{self.lives}"
                visitor = self.start(name)
                if kind == "visit":
                    await asyncio.sleep(length / 2)
                    (visitor.process.kill if random.random() < 0.5 else visitor.stop.set)()
                    del self.daemons[name]
            case "kafka":
                self.kafka.down = True
                await asyncio.sleep(length)
                self.kafka.back()
            case "postgres":
                self.postgres.down = True
                await asyncio.sleep(length)
                self.postgres.down = False
            case "stall":
                self.postgres.frozen.clear()
                await asyncio.sleep(length)
                self.postgres.frozen.set()
            case "retention" if self.settings.kafka.retry_topic is None:  # a retry waits long for a job that is gone
                tp = random.choice(self.jobs)
                log = self.kafka.logs[tp]
                start = random.randint(log.start, log.end)
                gone = [
                    row_id
                    for row_id, job in self.auditor.jobs.items()
                    if job.at.partition == tp.partition and job.at.offset < start
                ]
                self.auditor.deleted.update(gone)
                log.truncate(start)

    def restart(self, name: str, old: Daemon) -> None:
        if self.daemons.get(name) is old:
            if not old.process.dead and not old.task.done():
                self.note("kill", name)
                old.process.kill()
            self.start(name)


def run(seed: int, *, logs: bool = False) -> Outcome:
    """Play one schedule; with `logs` its trace holds what the daemons say."""
    outcome = Outcome(seed)
    global_random.seed(seed)
    notes: list[Callable[..., None]] = []  # none once it is over: what is buried then may complain
    with _logging_to(notes if logs else None), virtual_time(1000.0) as loop:
        world = World(seed, loop, outcome)
        notes.append(world.note)
        with real_parts_on(world.kafka, world.network, world.auditor):
            try:
                loop.run_until_complete(world.play())
            except (StuckError, Exception) as error:  # noqa: BLE001 (whatever it is, the seed is told)
                world.auditor.found(f"{type(error).__name__}: {error}")
        notes.clear()
        outcome.problems, outcome.jobs = world.auditor.problems, len(world.auditor.jobs)
        outcome.redone, outcome.seconds = world.auditor.redone, loop.now
    return outcome


@contextmanager
def _logging_to(notes: Sequence[Callable[..., None]] | None) -> Iterator[None]:
    """Send the logs to all of these, or nowhere; and no collector that would close what the dead left open."""

    def say(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
        process = PROCESS.get()
        for note in notes or ():
            note(
                process.name if process else "?", event.pop("event"), {key: event[key] for key in event if key != "job"}
            )
        raise structlog.DropEvent

    level = logging.CRITICAL if notes is None else logging.INFO
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, say],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        structlog.reset_defaults()
