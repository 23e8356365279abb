"""The real daemon as a child process against the real Kafka, Postgres and S3 server, and a web server of recordings."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import psutil
import pytest
from aiohttp import web
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from tests.living import lives
from tests.services.state import Services
from v2td import bundled
from v2td.bundled.recordings import AUDIO

Row = dict[str, Any]


@dataclass
class Daemon:
    """A running `v2td run`; its log is in `log`."""

    process: asyncio.subprocess.Process
    port: int
    log: Path

    async def status(self) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/status") as answer:
            return dict(await answer.json())

    async def metrics(self) -> str:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/metrics") as answer:
            return await answer.text()

    async def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 45)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@dataclass
class World:
    """Topics, a database and the address of the recordings, all of this test's own; starts daemons in it."""

    services: Services
    database: str
    topic: str
    dead_letters: str
    web: str
    folder: Path
    topics: list[str] = field(default_factory=list)

    def config(self, **overrides: Any) -> Path:
        """Write a config; `overrides` are dotted keys with __ for the dot, and None leaves a key out."""
        settings: dict[str, dict[str, Any]] = {
            "kafka": {
                "bootstrap_servers": [self.services.kafka_bootstrap],
                "topics": [self.topic, *self.topics],
                "dead_letter_topic": self.dead_letters,
                "group_id": self.topic,
                "session_timeout_seconds": 3,
            },
            "fetch": {
                "allowed_networks": ["127.0.0.0/8"],
                "allowed_ports": [int(self.web.rsplit(":", 1)[1])],
                "file_roots": [str(AUDIO)],
                "spool_dir": str(self.folder / "spool"),
            },
            "s3": {
                "endpoint_url": self.services.s3_endpoint,
                "access_key": self.services.s3_access_key,
                "secret_key": self.services.s3_secret_key,
            },
            "engine": {"model": "demo"},
            "pipeline": {"retry_initial_seconds": 0.2},
            "database": {"dsn": self.database},
            "admin": {"port": 0},
            "log": {"format": "json"},
        }
        for key, value in overrides.items():
            section, name = key.split("__", 1)
            settings.setdefault(section, {})[name] = value
        text = "\n".join(
            f"[{section}]\n"
            + "\n".join(f"{name} = {_toml(value)}" for name, value in values.items() if value is not None)
            for section, values in settings.items()
        )
        path = self.folder / "config.toml"
        path.write_text(text)
        path.chmod(0o600)
        return path

    @asynccontextmanager
    async def daemon(self, **overrides: Any) -> AsyncIterator[Daemon]:
        """Start a daemon and wait until it is ready; killed at the end if it still runs."""
        log = self.folder / f"daemon-{len(list(self.folder.glob('daemon-*')))}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "v2td", "run", "--config", str(self.config(**overrides))),
                stdout=output,
                stderr=output,
            )
        try:
            port = await asyncio.wait_for(_ready(process, log), 60)
            yield Daemon(process, port, log)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def submit(self, *messages: dict[str, Any] | bytes | None) -> None:
        """Produce messages to the topic, acknowledged by the broker."""
        producer = AIOKafkaProducer(bootstrap_servers=self.services.kafka_bootstrap, acks="all")
        await producer.start()
        try:
            for message in messages:
                value = json.dumps(message).encode() if isinstance(message, dict) else message
                await producer.send_and_wait(self.topic, value, key=b"key", headers=[("source", b"test")])
        finally:
            await producer.stop()

    async def rows(self, query: str, *arguments: Any) -> list[Row]:
        connection = await asyncpg.connect(self.database)
        try:
            return [dict(row) for row in await connection.fetch(query, *arguments)]
        finally:
            await connection.close()

    async def finished(self) -> int:
        """Outcomes that are durable."""
        (row,) = await self.rows("SELECT (SELECT count(*) FROM transcriptions) + (SELECT count(*) FROM failures) AS n")
        return int(row["n"])

    async def until_finished(self, count: int, seconds: float) -> None:
        """Wait for `count` durable outcomes."""
        async with asyncio.timeout(seconds):
            while await self.finished() < count:
                await asyncio.sleep(0.2)

    async def dead_letter_records(self) -> list[Any]:
        """All records of the dead-letter topic."""
        return await self.records(self.dead_letters)

    async def records(self, topic: str) -> list[Any]:
        """All records of a topic."""
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=self.services.kafka_bootstrap, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            found: list[Any] = []
            ends = await consumer.end_offsets(list(consumer.assignment()))
            while len(found) < sum(ends.values()):
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    found += records
            return found
        finally:
            await consumer.stop()

    async def uncommitted(self) -> dict[TopicPartition, int]:
        """Records behind the committed offset, for each partition that has any."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.services.kafka_bootstrap)
        consumer = AIOKafkaConsumer(bootstrap_servers=self.services.kafka_bootstrap)
        await admin.start()
        await consumer.start()
        try:
            committed = await admin.list_consumer_group_offsets(self.topic)
            partitions = [
                TopicPartition(topic, partition)
                for topic in (self.topic, *self.topics)
                for partition in await _partitions(admin, topic)
            ]
            ends = await consumer.end_offsets(partitions)
            return {
                tp: lag
                for tp, end in ends.items()
                if (lag := end - (committed[tp].offset if tp in committed else 0)) > 0
            }
        finally:
            await consumer.stop()
            await admin.close()


def _toml(value: Any) -> str:
    """Write a value of config.toml; tables stand in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


async def _partitions(admin: AIOKafkaAdminClient, topic: str) -> list[int]:
    (description,) = await admin.describe_topics([topic])
    return [each["partition"] for each in description["partitions"]]


async def _ready(process: asyncio.subprocess.Process, log: Path) -> int:
    """Return the admin port once the daemon has said that it is ready."""
    port = 0
    while True:
        if process.returncode is not None:
            raise AssertionError(f"the daemon ended with {process.returncode}:\n{log.read_text()}")
        for line in log.read_text().splitlines():
            entry = json.loads(line) if line.startswith("{") else {}
            if entry.get("event") == "admin endpoint":
                port = int(entry["url"].split(":")[2].split("/")[0])
            if entry.get("event") == "ready" and port:
                return port
        await asyncio.sleep(0.05)


async def none_left(processes: list[psutil.Process], seconds: float = 2) -> None:
    """Fail unless all processes have ended within `seconds`; who has not yet been reaped by init counts as ended."""

    end = time.monotonic() + seconds
    while living := [each for each in processes if lives(each)]:
        assert time.monotonic() < end, living
        await asyncio.sleep(0.02)


@pytest.fixture
async def flaky() -> dict[str, int]:
    """How often the web server still answers 503 for a path below /flaky/."""
    return {}


@pytest.fixture
async def recordings_server(flaky: dict[str, int]) -> AsyncIterator[str]:
    async def unsteady(request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if flaky.get(name, 0) > 0:
            flaky[name] -= 1
            return web.Response(status=503)
        return web.FileResponse(AUDIO / name)

    app = web.Application()
    app.router.add_get("/flaky/{name}", unsteady)
    app.router.add_static("/", AUDIO)
    async with AsyncExitStack() as stack:
        runner = web.AppRunner(app)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"


@pytest.fixture
async def world(
    services: Services,
    database: str,
    topic: Callable[..., Awaitable[str]],
    recordings_server: str,
    tmp_path: Path,
) -> World:
    assert os.environ.get("V2TD_CONFIG") is None, "the tests' daemons are to have the tests' settings"
    bundled.model_folder()  # built before any daemon waits for it
    return World(
        services=services,
        database=database,
        topic=await topic(partitions=4, name="jobs"),
        dead_letters=await topic(name="dead"),
        web=recordings_server,
        folder=tmp_path,
    )
