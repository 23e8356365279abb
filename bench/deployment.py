"""A topic, a database and daemons of one measure's own, on the real services; all of it goes with the measure."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bench.context import Context
from tests.services.state import Services

START_SECONDS = 60.0
STOP_SECONDS = 60.0
LOOK_SECONDS = 0.05

Config = dict[str, dict[str, Any]]


class MeasureError(Exception):
    """A measure did not measure what it is to measure."""


@dataclass(frozen=True, slots=True)
class Running:
    """A daemon that is ready."""

    process: psutil.Process
    port: int

    async def status(self) -> dict[str, Any]:
        """Return what /status says."""
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/status") as answer:
            return dict(await answer.json())

    def cpu_seconds(self) -> float:
        """CPU time of the process itself, without its children."""
        return _cpu_seconds(self.process)

    def children_cpu_seconds(self) -> dict[int, float]:
        """CPU time of each of its descendants, by process id."""
        return {child.pid: _cpu_seconds(child) for child in self.process.children(recursive=True)}


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where the daemons of a measure work."""

    services: Services
    dsn: str
    topic: str
    dead_letters: str
    partitions: int
    folder: Path

    def config(self, changes: Config) -> Path:
        """Write a config.toml: the services, the demo model, `changes` by section, and quiet logs."""
        values: Config = {
            "kafka": {
                "bootstrap_servers": [self.services.kafka_bootstrap],
                "topics": [self.topic],
                "dead_letter_topic": self.dead_letters,
                "group_id": self.topic,
                "session_timeout_seconds": 6,
            },
            "fetch": {
                "allowed_networks": ["127.0.0.0/8"],
                "allowed_ports": [],
                "spool_dir": str(self.folder / "spool"),
            },
            "engine": {"model": "demo"},
            "database": {"dsn": self.dsn},
            "log": {"format": "json", "level": "info"},
        }
        for section, keys in changes.items():
            values[section] = values.get(section, {}) | keys
        text = "".join(
            f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
            for section, keys in values.items()
        )
        path = self.folder / f"config-{secrets.token_hex(4)}.toml"
        path.touch(mode=0o600)
        path.write_text(text)
        return path

    @asynccontextmanager
    async def daemon(
        self, flags: Sequence[str] = (), changes: Config | None = None, cpus: Sequence[int] = ()
    ) -> AsyncIterator[Running]:
        """Run `bench.daemon_process` with `flags`, on `cpus` if any; yields when it is ready.

        At the end it drains by SIGTERM, so that every commit is done; MeasureError when it does not end well.
        """
        log = self.folder / f"daemon-{secrets.token_hex(4)}.log"
        port = _free_port()
        changes = changes or {}
        path = self.config(changes | {"admin": changes.get("admin", {}) | {"port": port}})
        command = (sys.executable, "-m", "bench.daemon_process", "--config", str(path), *flags)
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdout=output,
                stderr=output,
                preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None,
            )
        try:
            await _until_ready(process, port, log)
            yield Running(psutil.Process(process.pid), port)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(STOP_SECONDS):
                code = await process.wait()
            if code != 0:
                raise MeasureError(f"the daemon ended with {code}:\n{_tail(log)}")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def produce(self, values: Iterable[bytes]) -> int:
        """Send records round robin over the partitions, all acknowledged at the end; returns how many."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.services.kafka_bootstrap, acks="all", linger_ms=5, max_batch_size=262_144
        )
        await producer.start()
        try:
            sent = [
                await producer.send(self.topic, value, partition=number % self.partitions)
                for number, value in enumerate(values)
            ]
            await producer.flush()
            return len(await asyncio.gather(*sent))
        finally:
            await producer.stop()

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        """Ask the database on a connection of its own."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()

    async def transcribed(self) -> int:
        """Return the rows of transcriptions; MeasureError when there is any failure."""
        ((rows, failures),) = await self.fetch(
            "SELECT (SELECT count(*) FROM transcriptions), (SELECT count(*) FROM failures)"
        )
        if failures:
            ((reason,),) = await self.fetch("SELECT reason FROM failures LIMIT 1")
            raise MeasureError(f"{failures} jobs failed, one of them with: {reason}")
        return int(rows)

    async def until_transcribed(self, count: int, seconds: float) -> None:
        """Wait for so many rows; MeasureError when that takes longer."""
        try:
            async with asyncio.timeout(seconds):
                while await self.transcribed() < count:
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            raise MeasureError(f"{await self.transcribed()} of {count} rows after {seconds:g} s") from None

    async def uncommitted(self) -> int:
        """Return the records behind the group's committed offsets."""
        partitions = [TopicPartition(self.topic, number) for number in range(self.partitions)]
        async with _consumer(self.services, group_id=self.topic) as consumer:
            ends = await consumer.end_offsets(partitions)
            return sum([end - (await consumer.committed(tp) or 0) for tp, end in ends.items()])

    async def check_all_done(self, count: int) -> None:
        """MeasureError unless exactly `count` recordings have their row and every offset is committed."""
        rows, behind = await self.transcribed(), await self.uncommitted()
        if rows != count or behind:
            raise MeasureError(f"{rows} rows instead of {count}, {behind} records not committed")


@asynccontextmanager
async def deploy(context: Context, partitions: int = 8) -> AsyncIterator[Deployment]:
    """Make an empty database, a topic and its dead letters; all go at the end."""
    async with (
        context.database() as dsn,
        context.topic(partitions) as topic,
        context.topic(name="bench-dead") as dead_letters,
    ):
        folder = context.folder / topic
        folder.mkdir()
        yield Deployment(context.services, dsn, topic, dead_letters, partitions, folder)


async def records(services: Services, topic: str, partitions: int) -> int:
    """Return how many records a topic holds."""
    async with _consumer(services) as consumer:
        return sum((await consumer.end_offsets([TopicPartition(topic, each) for each in range(partitions)])).values())


@asynccontextmanager
async def _consumer(services: Services, group_id: str | None = None) -> AsyncIterator[Any]:
    consumer = AIOKafkaConsumer(bootstrap_servers=services.kafka_bootstrap, group_id=group_id, enable_auto_commit=False)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


def messages(count: int, url: str = "http://127.0.0.1/a.wav") -> Iterator[bytes]:
    """Yield job messages as a producer would write them."""
    for number in range(count):
        yield json.dumps({"audio_url": url, "id": f"bench-{number}", "language": "en"}).encode()


async def _until_ready(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    """Ask /readyz until it says yes; a log that is to be quiet does not tell."""
    end = time.monotonic() + START_SECONDS
    async with aiohttp.ClientSession() as session:
        while True:
            if process.returncode is not None or time.monotonic() > end:
                raise MeasureError(f"the daemon does not start (exit status {process.returncode}):\n{_tail(log)}")
            with suppress(aiohttp.ClientConnectionError):
                async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(LOOK_SECONDS)


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _tail(log: Path) -> str:
    return "\n".join(log.read_text().splitlines()[-20:])
