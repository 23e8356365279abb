"""The world of one fault: topics, a database, a web server, a producer, an auditor and daemons of its own.

async def run(world: World, size: Size) -> Result:
    await world.producer.send(200)
    daemon = await world.daemons.start(failpoints="write.copied=kill")
    await world.daemons.bury(daemon, 20)
    began = time.monotonic()
    done = await world.done()
    async with world.daemons.running():
        recovered = await world.until_progress(done, 20, since=began)
        await world.until_all_done(60)
    return await world.result(cycles=1, recoveries=[recovered])
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.chaos.auditor import Auditor
from tests.chaos.daemons import DaemonError, Daemons
from tests.chaos.fault import Result
from tests.chaos.producer import Producer
from tests.chaos.web import serve
from tests.services import minio
from tests.services.state import Services
from v2td import store
from v2td.bundled.recordings import AUDIO

LOOK_SECONDS = 0.1
COMMIT_SECONDS = 30.0  # for a group that has to be joined again
TROUBLE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)

_DONE = """
SELECT (SELECT count(*) FROM transcriptions)
    + (SELECT count(*) FROM failures WHERE replay_state IS DISTINCT FROM 'requested')
"""


@dataclass(slots=True)
class World:
    """Where a fault is brought about. Everything in it is the fault's own and goes at the end.

    `producer`, `auditor` and `done` reach the services directly; daemons too, unless their settings say otherwise
    (`kafka__bootstrap_servers=[proxy]`, `database__dsn=...`).
    """

    services: Services
    topic: str
    dead_letters: str
    database: str  # DSN
    bucket: str
    web: str  # address of the web server, see web.py
    folder: Path
    say: Callable[[str], None]  # progress, on standard error
    producer: Producer
    auditor: Auditor
    daemons: Daemons

    def elsewhere(self, services: Services, **arguments: Any) -> AbstractAsyncContextManager[World]:
        """Open another world on `services` (a cluster or a Postgres of the fault's own); arguments of `open_world`."""
        return open_world(services, self.folder / secrets.token_hex(3), self.say, **arguments)

    async def rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """Ask the database on a connection of its own, which gives up after some seconds."""
        async with asyncio.timeout(15):
            connection = await asyncpg.connect(self.database, timeout=5)
            try:
                return [dict(row) for row in await connection.fetch(query, *arguments)]
            finally:
                connection.terminate()

    async def done(self) -> int:
        """Return the durable outcomes; failures that wait for their replay are none."""
        ((count,),) = [row.values() for row in await self.rows(f"SELECT ({_DONE}) AS done")]
        return int(count)

    async def until_progress(self, done: int, seconds: float, *, since: float | None = None) -> float:
        """Wait until there are more outcomes than `done`; returns seconds since `since` (time.monotonic()).

        After `seconds` it stops to wait and returns what has passed by then: `within` makes a problem of it.
        """
        began = time.monotonic() if since is None else since
        while time.monotonic() < began + seconds:
            if await self._done_or_none() > done:
                break
            await asyncio.sleep(LOOK_SECONDS)
        return time.monotonic() - began

    async def until_all_done(self, seconds: float) -> bool:
        """Wait until there are as many outcomes as acknowledged records; False when that takes longer.

        The verdict then says which are missing, so nothing needs to be done about it. Records that were excused are
        not waited for.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if await self._done_or_none() >= len(self.producer.acknowledged) - self.auditor.excused:
                return True
            await asyncio.sleep(LOOK_SECONDS)
        return False

    async def uncommitted(self) -> dict[TopicPartition, int]:
        """Return how many offsets the group's commits are behind the last acknowledged record, where they are."""
        ends: dict[TopicPartition, int] = {}
        for record in self.producer.acknowledged:
            tp = TopicPartition(record.topic, record.partition)
            ends[tp] = max(ends.get(tp, 0), record.offset + 1)
        committed = await self.auditor.committed()
        return {tp: end - committed.get(tp, 0) for tp, end in ends.items() if end > committed.get(tp, 0)}

    async def result(
        self,
        cycles: int,
        recoveries: list[float] | None = None,
        problems: list[str] | None = None,
        figures: dict[str, float] | None = None,
        *,
        all_committed: bool = True,
    ) -> Result:
        """Stop the daemons by SIGTERM, have the auditor judge, and return all of it.

        With `all_committed`, offsets that are behind the last record count as a problem: all of them are done.
        """
        found = list(problems or [])
        if all_committed and any(daemon.running for daemon in self.daemons.all):
            await self._until_committed()  # who was just without a broker has to join its group again first
        for daemon in self.daemons.all:
            if daemon.running:
                try:
                    await self.daemons.stop(daemon)
                except DaemonError as error:
                    found.append(str(error))
        verdict = await self.auditor.verdict()
        behind = await self.uncommitted() if all_committed else {}
        found += verdict.problems
        found += [f"{tp.topic}/{tp.partition}: {lag} records are not committed" for tp, lag in behind.items()]
        return Result(
            cycles=cycles,
            recoveries=list(recoveries or []),
            lost=verdict.lost,
            duplicates=verdict.duplicates,
            orphans=self.daemons.orphans,
            redone_ratio=self.daemons.redone_ratio,
            records=verdict.records,
            failpoints=self.daemons.failpoints,
            problems=found,
            figures=dict(figures or {}),
        )

    async def _until_committed(self) -> None:
        """Wait for the commits of what is done; the verdict says what is missing."""
        end = time.monotonic() + COMMIT_SECONDS
        while await self.uncommitted() and time.monotonic() < end:
            await asyncio.sleep(LOOK_SECONDS)

    async def _done_or_none(self) -> int:
        try:
            return await self.done()
        except TROUBLE:  # the database is what is being troubled
            return -1


@asynccontextmanager
async def open_world(
    services: Services,
    folder: Path,
    say: Callable[[str], None],
    *,
    partitions: int = 4,
    replication: int = 1,
    topic_config: Mapping[str, str] | None = None,
) -> AsyncIterator[World]:
    """Make a topic, its dead letters, a migrated database, a bucket, and open what looks at them."""
    folder.mkdir(parents=True)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        dsn = await enter(_database(services))
        await store.upgrade(dsn)
        topic, dead = await enter(_topics(services, partitions, replication, topic_config or {}))
        bucket = await enter(minio.bucket(services, "chaos"))
        web = await enter(serve())
        producer = await enter(Producer(services.kafka_bootstrap, topic, partitions, web))
        auditor = await enter(Auditor(services.kafka_bootstrap, dsn, topic, dead, producer))
        daemons = await enter(Daemons(folder, _settings(services, (topic, dead), dsn, folder)))
        yield World(services, topic, dead, dsn, bucket, web, folder, say, producer, auditor, daemons)


def _settings(services: Services, topics: tuple[str, str], dsn: str, folder: Path) -> dict[str, dict[str, Any]]:
    """The daemons' configuration: short times, so that faults show their effects soon."""
    topic, dead_letters = topics
    return {
        "kafka": {
            "bootstrap_servers": services.kafka_bootstrap.split(","),
            "topics": [topic],
            "dead_letter_topic": dead_letters,
            "group_id": topic,
            "session_timeout_seconds": 3,
            "rebalance_timeout_seconds": 12,
            "metadata_max_age_seconds": 5,
        },
        "fetch": {
            "allowed_networks": ["127.0.0.0/8"],
            "allowed_ports": [],
            "file_roots": [str(AUDIO)],
            "spool_dir": str(folder / "spool"),
        },
        "s3": {
            "endpoint_url": services.s3_endpoint,
            "access_key": services.s3_access_key,
            "secret_key": services.s3_secret_key,
        },
        "engine": {"model": "demo"},
        "pipeline": {"retry_initial_seconds": 0.2, "progress_seconds": 0.3, "breaker_ratio": 1},
        "database": {"dsn": dsn, "migrate_on_start": False},
        "admin": {"port": 0},
        "log": {"format": "json"},
        "testing": {"failpoints": True},
    }


@asynccontextmanager
async def _database(services: Services) -> AsyncIterator[str]:
    name = f"chaos_{secrets.token_hex(6)}"
    server = await asyncpg.connect(services.postgres_dsn)
    try:
        await server.execute(f'CREATE DATABASE "{name}"')
    finally:
        await server.close()
    yield services.postgres_dsn.removesuffix("/postgres") + f"/{name}"
    server = await asyncpg.connect(services.postgres_dsn)
    try:
        await server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await server.close()


@asynccontextmanager
async def _topics(
    services: Services, partitions: int, replication: int, config: Mapping[str, str]
) -> AsyncIterator[tuple[str, str]]:
    unique = secrets.token_hex(4)
    topic, dead = f"chaos-{unique}", f"chaos-dead-{unique}"
    admin = AIOKafkaAdminClient(bootstrap_servers=services.kafka_bootstrap)
    await admin.start()
    try:
        await admin.create_topics(
            [NewTopic(topic, partitions, replication, topic_configs=dict(config)), NewTopic(dead, 1, replication)]
        )
        yield topic, dead
        await admin.delete_topics([topic, dead])
    finally:
        await admin.close()
