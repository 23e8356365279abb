"""What people ask of jobs and of the intake reaches every instance, whichever was told, and whatever breaks meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from pydantic import SecretStr

from tests.daemon.conftest import Daemon, World
from v2td import bundled, failpoints, store
from v2td.config import DatabaseSettings, load
from v2td.ops.submit import open_submitter, prepare
from v2td.store.commands import Command

SHORT = next(each for each in bundled.recordings() if each.seconds < 30)
LONG = next(each for each in bundled.recordings() if each.seconds > 60)
ONE_SLOT = {"engine__slots": 1, "engine__batch_windows": 1, "testing__failpoints": True}


class Submitting:
    """Sends jobs, and gives commands as another program would: by Kafka and Postgres alone."""

    def __init__(self, world: World, database: store.Database) -> None:
        self.world = world
        self.database = database

    async def send(self, *urls: str, **fields: Any) -> list[UUID]:
        settings = load(self.world.config()).settings
        async with open_submitter(self.world.topic, settings) as submitter:
            sent = await submitter.send([prepare(url, fields, settings) for url in urls])
        return [each.row_id for each in sent]

    async def give(self, command: Command) -> None:
        await store.commands.give(self.database, command, "test")

    async def cancel(self, *jobs: UUID) -> None:
        await store.commands.give_all(self.database, [Command("cancel", job) for job in jobs], "test")

    async def intake(self, kind: store.commands.Kind, instance: str | None = None) -> None:
        await self.give(Command(kind, group_id=self.world.topic, instance=instance))

    async def outcomes(self, jobs: Iterable[UUID]) -> list[str | None]:
        """Class of failure, or "transcribed", of each job; None: it has no outcome."""
        rows = await self.world.rows(
            "SELECT id, error_class AS what FROM failures UNION ALL SELECT id, 'transcribed' FROM transcriptions"
        )
        found = {row["id"]: row["what"] for row in rows}
        assert len(found) == len(rows), "a job has one outcome"
        return [found.get(job) for job in jobs]


@pytest.fixture
async def jobs(world: World) -> AsyncIterator[Submitting]:
    dsn = SecretStr(world.database)
    await store.upgrade(world.database)
    async with store.open_database(DatabaseSettings(dsn=dsn, pool_min=0, pool_max=2)) as database:
        yield Submitting(world, database)


@pytest.fixture
async def silent() -> AsyncIterator[tuple[str, list[str]]]:
    """A web server that takes requests and never answers, and who has connected and not left again."""
    connected: list[str] = []

    async def never(request: web.Request) -> web.Response:
        connected.append(request.path)
        try:
            await asyncio.sleep(3600)
        finally:
            connected.remove(request.path)
        return web.Response()

    app = web.Application()
    app.router.add_get("/{name}", never)
    async with AsyncExitStack() as stack:
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", connected


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 40) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


def logged(daemon: Daemon, event: str, **fields: Any) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in daemon.log.read_text().splitlines() if line.startswith("{")]
    return [each for each in entries if each["event"] == event and fields.items() <= each.items()]


async def test_a_job_is_cancelled_wherever_it_is_and_another_hurried(
    world: World,
    jobs: Submitting,
    silent: tuple[str, list[str]],
    flaky: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    never, connected = silent
    flaky[SHORT.name] = 1_000_000
    ports = [int(url.rsplit(":", 1)[1]) for url in (never, world.web)]
    monkeypatch.setenv(failpoints.VARIABLE, "slot.batch=sleep1.5@*")
    settings = {**ONE_SLOT, "pipeline__max_prepared": 4, "pipeline__retry_initial_seconds": 3600}
    settings |= {"pipeline__retry_max_seconds": 3600, "pipeline__max_in_flight": 10, "fetch__allowed_ports": ports}
    async with world.daemon(**settings) as daemon:
        (fetched, retried) = await jobs.send(f"{never}/a.ogg", f"{world.web}/flaky/{SHORT.name}")
        (heard,) = await jobs.send(f"{world.web}/{LONG.name}")

        async def busy() -> bool:
            return bool(connected) and (await daemon.status())["slots"][0]["state"] == "busy"

        await until(busy)
        queued = await jobs.send(*[f"{world.web}/{SHORT.name}"] * 6)  # three for a slot, three for a place
        stages = "v2td_stage_in_flight"

        async def all_wait() -> bool:
            return f'{stages}{{stage="transcribe"}} 4.0' in await daemon.metrics() and bool(
                logged(daemon, "trying again", job=str(retried))
            )

        await until(all_wait)
        gone = [fetched, retried, heard, queued[0], queued[-1]]
        await jobs.give(Command("priority", queued[3], priority=0))
        await jobs.cancel(*gone)
        await until(lambda: _ended(jobs, gone))
        assert connected == []
        await until(lambda: _ended(jobs, queued))
        expected = ["cancelled", *["transcribed"] * 4, "cancelled"]
        assert await jobs.outcomes([*gone, *queued]) == ["cancelled"] * 5 + expected
        metrics = await daemon.metrics()
        assert 'v2td_commands_total{command="cancel"} 5.0' in metrics
        assert 'v2td_commands_total{command="priority"} 1.0' in metrics
        assert await daemon.terminate() == 0
    order = [row["id"] for row in await world.rows("SELECT id FROM transcriptions ORDER BY created_at")]
    assert order.index(queued[3]) <= 1, "but for the one that the slot had already"
    for row in await world.rows("SELECT reason, attempts FROM failures"):
        assert row["reason"] == "cancelled by test"
    assert (
        sorted(dict(each.headers)["v2td-error-class"] for each in await world.dead_letter_records())
        == [b"cancelled"] * 5
    )
    assert await world.uncommitted() == {}
    assert await world.rows("SELECT FROM job_commands WHERE done_at IS NULL") == []
    assert not any((world.folder / "spool").iterdir())


async def _ended(jobs: Submitting, which: list[UUID]) -> bool:
    return None not in await jobs.outcomes(which)
