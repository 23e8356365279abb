"""A real receiver on loopback that judges with the specification's own library, and what tells it, on real Postgres."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import uvloop
from aiohttp import web
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook

from tests.services.state import Services
from v2td.config import DatabaseSettings, KafkaSettings, Settings
from v2td.delivery import Delivery
from v2td.intake import DeadLetters
from v2td.jobs import Outcome
from v2td.store import Database, Writer, open_database, upgrade
from v2td.webhooks import Webhooks

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The daemon runs on uvloop, and sockets are where loops differ."""
    return {"uvloop": uvloop.new_event_loop}


def new_secret(size: int = 32) -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(size)).decode()}"


@dataclass
class Request:
    """What a receiver was sent."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def message(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    def verified(self, secret: str) -> dict[str, Any]:
        """The message, when the judge takes its signature; else its error is raised."""
        return dict(Webhook(secret).verify(self.body, self.headers))


@dataclass
class Receiver:
    """Takes what it is sent; `answers` say what it answers next, and then 204."""

    url: str = ""
    got: list[Request] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.got.append(Request(request.path_qs, headers, await request.read()))
            return await (self.answers.pop(0) if self.answers else status(204))(request)
        finally:
            self.at_once -= 1

    async def until(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.got) < count:
                await asyncio.sleep(0.01)


def status(number: int, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=number, headers={name.replace("_", "-"): each for name, each in headers.items()})

    return answer


async def silence(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[Receiver]:
    receiver = Receiver()
    application = web.Application()
    application.router.add_post("/{path:.*}", receiver.take)
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, 0, ssl_context=tls).start()
        receiver.url = f"http{'s' if tls else ''}://{host}:{runner.addresses[0][1]}/hook"
        yield receiver
    finally:
        await runner.cleanup()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as found:
        yield found


@pytest.fixture
def secret() -> str:
    return new_secret()


MakeSettings = Callable[..., Settings]


@pytest.fixture
def make_settings(secret: str, tmp_path: Path) -> MakeSettings:
    """``make_settings(fetch={}, **webhooks)``: 127.0.0.1 is allowed, no other; pauses are short."""

    def make(fetch: Mapping[str, object] | None = None, **webhooks: object) -> Settings:
        values: dict[str, object] = {
            "secret": secret,
            "allowed_networks": ("127.0.0.1/32",),
            "allowed_ports": (),
            "initial_seconds": 0.05,
            "timeout_seconds": 10,
        }
        return Settings.model_validate({"webhooks": values | webhooks, "fetch": dict(fetch or {})})

    return make


@dataclass
class World:
    """Delivers outcomes as the daemon does, with webhooks and without a results topic."""

    delivery: Delivery
    webhooks: Webhooks
    database: Database
    dsn: str

    async def deliver(self, *outcomes: Outcome) -> None:
        await asyncio.gather(*(self.delivery.deliver(each) for each in outcomes))

    async def rows(self, query: str = "SELECT * FROM webhooks ORDER BY created_at, url") -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.dsn)
        try:
            return [dict(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    async def until(self, state: str, count: int = 1) -> list[dict[str, Any]]:
        """Return the rows once so many are in that state."""
        async with asyncio.timeout(30):
            while sum(row["state"] == state for row in await self.rows()) < count:
                await asyncio.sleep(0.02)
        return await self.rows()


OpenWorld = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture
async def open_world(database: str, services: Services) -> OpenWorld:
    """``async with open_world(settings, run=True) as world``: with `run` what is noted is sent too."""
    await upgrade(database)
    kafka = KafkaSettings(
        bootstrap_servers=(services.kafka_bootstrap,),
        dead_letter_topic=f"dead-{secrets.token_hex(6)}",
        retry_topic=f"later-{secrets.token_hex(6)}",
    )
    of_database = DatabaseSettings(dsn=SecretStr(database), pool_min=0, flush_seconds=0.01)

    @asynccontextmanager
    async def opened(settings: Settings, *, run: bool = True, resolver: Any = None) -> AsyncIterator[World]:
        async with (
            open_database(of_database) as lent,
            Webhooks(settings, lent, resolver) as webhooks,
            DeadLetters(kafka) as letters,
            asyncio.TaskGroup() as group,
        ):
            writer = Writer(lent, of_database, letters.send)
            group.create_task(writer.run())
            sending = group.create_task(webhooks.run()) if run else None
            yield World(Delivery(letters, writer, None, lent, webhooks), webhooks, lent, database)
            writer.close()
            if sending is not None:
                sending.cancel()

    return opened
