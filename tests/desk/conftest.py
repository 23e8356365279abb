"""A real desk, in front of the real Kafka and Postgres, behind the real server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import pytest
import uvloop
from aiokafka import AIOKafkaConsumer
from pydantic import SecretStr

from tests.conftest import MakeTopic
from tests.services.state import Services
from tests.store.outcomes import failure, transcript
from v2td.admin import JobsApi, View, serve
from v2td.board import Board
from v2td.config import AdminSettings, ApiSettings, DatabaseSettings, KafkaSettings, Settings
from v2td.desk import Desk
from v2td.jobs import Failure, Outcome, Transcript
from v2td.store import Database, Writer, ensure_partitions, open_database, upgrade

TOKEN = "a token of more than sixteen characters"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def pytest_asyncio_loop_factories() -> Mapping[str, Any]:
    """The daemon runs on uvloop, and sockets are where loops differ."""
    return {"uvloop": uvloop.new_event_loop}


@dataclass
class Office:
    """Where desks are opened: a topic and a database of this test's own."""

    settings: Settings
    database: Database
    dsn: str
    board: Board = field(default_factory=Board)

    @asynccontextmanager
    async def desk(self, settings: Settings | None = None, database: Database | None = None) -> AsyncIterator[Desk]:
        async with Desk(
            settings or self.settings, database or self.database, self.board, lambda _topic, _number: 0
        ) as desk:
            yield desk

    async def records(self) -> list[Any]:
        """All that is in the topic."""
        (topic,), (servers) = self.settings.kafka.topics, list(self.settings.kafka.bootstrap_servers)
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest")
        await consumer.start()
        try:
            found: list[Any] = []
            ends = await consumer.end_offsets(list(consumer.assignment()))
            while len(found) < sum(ends.values()):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += records
            return found
        finally:
            await consumer.stop()

    async def sql(self, statement: str, *arguments: Any) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.dsn)
        try:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]
        finally:
            await connection.close()


@pytest.fixture
async def office(services: Services, topic: MakeTopic, database: str) -> AsyncIterator[Office]:
    await upgrade(database)
    kafka = KafkaSettings(
        bootstrap_servers=(services.kafka_bootstrap,),
        topics=(await topic(partitions=2, name="jobs"),),
        dead_letter_topic=await topic(name="dead"),
        group_id=f"office-{secrets.token_hex(6)}",
    )
    settings = Settings(kafka=kafka, database=DatabaseSettings(dsn=SecretStr(database), pool_min=0))
    async with open_database(settings.database) as opened:
        yield Office(settings, opened, database)


@asynccontextmanager
async def served(desk: Desk, **admin: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve a desk; a client of it that shows the token."""
    given = AdminSettings.model_validate({"port": 0, "token": TOKEN, **admin})
    view = View(lambda: None, lambda: None, dict)
    async with (
        serve(given, view, [JobsApi(desk, ApiSettings(), given)]) as url,
        aiohttp.ClientSession(url, headers=BEARER) as session,
    ):
        yield session


async def ask(session: aiohttp.ClientSession, method: str, path: str, **more: Any) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    async with session.request(method, path, **more) as answer:
        return answer.status, await answer.json(content_type=None)


async def filled(office: Office) -> tuple[list[UUID], list[UUID]]:
    """Write five transcripts and five failures; their ids, the oldest first."""
    outcomes: list[Outcome] = [
        *(transcript(number) for number in range(5)),
        *(failure(number + 10) for number in range(5)),
    ]
    writer = Writer(office.database, office.settings.database, _no_unwritable)
    async with office.database.acquire() as connection:
        await ensure_partitions(connection, 1)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(writer.run())
        for outcome in outcomes:
            await writer.write(outcome)
        writer.close()
        await running
    ids = [(each.job if isinstance(each, Transcript) else each).coordinates.row_id() for each in outcomes]
    return ids[:5], ids[5:]


async def _no_unwritable(failed: Failure) -> None:
    raise AssertionError(failed.reason)
