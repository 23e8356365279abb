"""A daemon of the real parts: Intake, Pipeline, Writer, Journals, DeadLetters, put together as v2td.daemon does it.

`real_parts_on` replaces what they reach the outside with: Kafka's clients and the statements of v2td.store.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, cast
from unittest import mock

from tests.simulation.auditor import Auditor
from tests.simulation.clients import SimulatedAdmin, SimulatedProducer, SimulatedTopicIds
from tests.simulation.consumer import SimulatedConsumer
from tests.simulation.kafka import Kafka
from tests.simulation.loop import Process
from tests.simulation.network import Connection, Network
from tests.simulation.postgres import Postgres
from tests.simulation.rooms import Rooms as SimulatedRooms
from v2td import daemon as _daemon  # noqa: F401  (all modules are there to be patched)
from v2td import store
from v2td.attempt import Hearers
from v2td.commands import Commands
from v2td.config import Settings
from v2td.delivery import Delivery
from v2td.intake import DeadLetters, Intake
from v2td.intake.offsets import OffsetTracker
from v2td.local import Local
from v2td.outputs import Outputs
from v2td.pipeline import Pipeline, Rooms
from v2td.progress import Journals
from v2td.providers import Providers
from v2td.replays import Replays
from v2td.store import batch

FLUSH_SECONDS = 5.0
STATEMENTS = ("durable_jobs", "save_windows", "load_windows", "unfinished", "note_death", "find_replay", "has_outcome")


@dataclass(slots=True)
class Daemon:
    """One life of one instance."""

    process: Process
    task: asyncio.Task[None]
    stop: asyncio.Event
    intake: Intake | None = None


@contextmanager
def real_parts_on(kafka: Kafka, network: Network, auditor: Auditor) -> Iterator[None]:
    """Let the parts talk to the simulated services inside the block."""

    def connect(timeout: float) -> Connection:
        return Connection(network, lambda: kafka.down, timeout)

    def consumer(*_topics: str, **options: Any) -> SimulatedConsumer:
        return SimulatedConsumer(kafka, connect, auditor, options)

    clients: dict[str, Callable[..., Any]] = {
        "AIOKafkaConsumer": consumer,
        "AIOKafkaProducer": lambda **options: SimulatedProducer(kafka, connect(options["request_timeout_ms"] / 1000)),
        "AIOKafkaAdminClient": lambda **_: SimulatedAdmin(kafka),
        "TopicIds": lambda settings: SimulatedTopicIds(kafka, connect(settings.request_timeout_seconds)),
    }
    with ExitStack() as patches:

        def replace(target: Any, name: str, replacement: Any) -> None:
            patches.enter_context(mock.patch.object(target, name, replacement))

        for name, module in list(sys.modules.items()):
            if name.startswith("v2td.intake."):
                for client, replacement in clients.items():
                    if hasattr(module, client):
                        replace(module, client, replacement)
        for statement in STATEMENTS:
            replace(store, statement, _of_database(statement))
        replace(batch, "insert", lambda connection, rows: connection.insert(rows))
        for method in ("receive", "resolve"):
            replace(OffsetTracker, method, getattr(auditor, f"watch_{method}")(getattr(OffsetTracker, method)))
        yield


def _of_database(statement: str) -> Callable[..., Any]:
    return lambda database, *arguments: getattr(database, statement)(*arguments)


async def live(
    daemon: Daemon,
    settings: Settings,
    postgres: Postgres,
    simulated: SimulatedRooms,
    *,
    auditor: Auditor,
    random: Random,
) -> None:
    """Work until `daemon.stop`, then drain, flush, commit and leave, as v2td.daemon does."""
    database = cast("store.Database", postgres)
    async with AsyncExitStack() as stack:
        dead_letters = await stack.enter_async_context(DeadLetters(settings.kafka))
        writer = store.Writer(database, settings.database, dead_letters.send)
        journals = Journals(database, "simulated", settings.pipeline.progress_seconds)
        parts = cast("Any", simulated)
        local = Local(parts, journals, settings)
        providers = await stack.enter_async_context(Providers(settings, local))
        hearers = Hearers(parts, parts, local, providers, None, journals)
        outputs = Outputs(settings.output, parts)
        delivery = Delivery(dead_letters, writer, None, database)
        rooms = Rooms(hearers, outputs, delivery, journals, Replays(database, settings), Commands(database, settings))
        pipeline = Pipeline(rooms, settings, 6)
        pipeline._random = Random(random.random())
        dead_letters._random = Random(random.random())
        intake = await stack.enter_async_context(
            Intake(
                settings.kafka,
                auditor.watch_work(pipeline.handle),
                auditor.watch_look_ups(journals.look_back),
                max_in_flight=settings.pipeline.max_in_flight,
                blocked=lambda: not writer.healthy.is_set() or pipeline.circuit_open(),
                skipped=pipeline.note_unreadable,
                before_revoke=auditor.watch_saving(journals.save),
            )
        )
        daemon.intake = intake
        async with asyncio.TaskGroup() as group:
            saving = group.create_task(journals.run())
            writing = group.create_task(writer.run())
            consuming = group.create_task(intake.run())
            await daemon.stop.wait()
            intake.stop(settings.pipeline.drain_seconds)
            await asyncio.wait([consuming])
            writer.close()
            await asyncio.wait([writing], timeout=FLUSH_SECONDS)
            writing.cancel()
            saving.cancel()
