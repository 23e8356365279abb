"""What people ask of jobs and of the intake reaches every instance, whatever breaks meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from pydantic import SecretStr

from tests.daemon.conftest import Daemon, World
from v2td import bundled, failpoints, store
from v2td.config import DatabaseSettings, load
from v2td.dead_letters import open_replayer
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


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 90) -> None:
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
    settings: dict[str, Any] = {**ONE_SLOT, "pipeline__max_prepared": 4, "pipeline__retry_initial_seconds": 3600}
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


async def test_the_intake_of_one_or_all_pauses_until_somebody_says_otherwise(world: World, jobs: Submitting) -> None:
    """Over a restart, and though the connections that hear of commands are cut; cancelled before they were read."""
    await jobs.intake("pause")
    async with world.daemon(engine__slots=1) as daemon:
        status = await daemon.status()
        assert status["paused"].startswith("paused by test since 2")
        assert (status["ready"], status["not_ready_because"]) == (False, status["paused"])
        assert "v2td_intake_stopped 1.0" in await daemon.metrics()
        waiting = await jobs.send(*[f"{world.web}/{SHORT.name}"] * 4)
        assert await daemon.terminate() == 0
    async with AsyncExitStack() as stack:
        start = stack.enter_async_context
        one = await start(world.daemon(engine__slots=1, kafka__group_instance_id="one"))
        two = await start(world.daemon(engine__slots=1, kafka__group_instance_id="two"))
        assert [(await each.status())["paused"] is not None for each in (one, two)] == [True, True]
        for each in (one, two):
            assert "v2td_records_received_total{" not in await each.metrics(), "an assignment resumes its partitions"
        await jobs.cancel(*waiting[:2])
        await world.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1",
            store.commands.CHANNEL,
        )
        await jobs.intake("resume", "one")

        async def only_one_works() -> bool:
            return [(await each.status())["paused"] is None for each in (one, two)] == [True, False]

        await until(only_one_works)
        assert logged(two, "command", command="resume") == []
        await jobs.intake("resume")
        await until(lambda: _ended(jobs, waiting))
        assert await jobs.outcomes(waiting) == ["cancelled", "cancelled", "transcribed", "transcribed"]
        settings = load(world.config()).settings
        async with open_replayer(settings, again=False, dry_run=False) as replayer:
            assert [each.result async for each in replayer.replay(waiting[:1])] == ["sent"]

        async def heard() -> bool:
            return await jobs.outcomes(waiting) == ["transcribed", "cancelled", "transcribed", "transcribed"]

        await until(heard)
        assert [await each.terminate() for each in (one, two)] == [0, 0]
    (failed,) = await world.rows("SELECT reason, attempts FROM failures")
    assert (failed["reason"], failed["attempts"]) == ("cancelled by test", 0)
    assert await world.uncommitted() == {}
    acts = [each.action for each in await store.audit.entries(jobs.database)]
    assert acts == ["resume", "resume", "cancel", "cancel", "pause"]


async def _ended(jobs: Submitting, which: list[UUID]) -> bool:
    return None not in await jobs.outcomes(which)
