"""The auditor and the keeper of daemons against real services: what they are there to see, they see."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.chaos import daemons
from tests.chaos.fault import Fault, Result, Size
from tests.chaos.programme import run_one
from tests.chaos.world import World, open_world
from tests.services.state import Services


@pytest.fixture
async def world(services: Services, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(services, tmp_path / "world", print) as opened:
        yield opened


async def all_done(world: World) -> None:
    """20 jobs, two of them failures, done by a daemon that ended well."""
    await world.producer.send(17)
    await world.producer.send(1, "/echo/5")
    await world.producer.send(1, "/status/404")
    await world.producer.send_raw(b"{")
    async with world.daemons.running():
        assert await world.until_all_done(30)


async def execute(world: World, *statements: str) -> None:
    connection = await asyncpg.connect(world.database)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_all_is_well(world: World) -> None:
    await all_done(world)
    result = await world.result(cycles=1)
    assert result == Result(cycles=1, records=20)
    assert world.daemons.heard().total() == 17 + 5
    assert world.auditor.audits > 0


async def test_a_lost_row_is_seen(world: World) -> None:
    await all_done(world)
    await execute(world, "DELETE FROM transcriptions WHERE id = (SELECT id FROM transcriptions LIMIT 1)")
    result = await world.result(cycles=1)
    assert result.lost == 1
    assert not result.passed


async def test_a_row_that_is_there_twice_is_seen(world: World) -> None:
    await all_done(world)
    await execute(
        world,
        "CREATE TEMPORARY TABLE copied AS SELECT * FROM transcriptions LIMIT 1",
        "UPDATE copied SET id = gen_random_uuid()",
        "INSERT INTO transcriptions SELECT * FROM copied",
    )
    result = await world.result(cycles=1)
    assert (result.lost, result.duplicates) == (0, 1)
    assert not result.passed


async def test_a_failure_without_its_letter_is_seen(world: World) -> None:
    await all_done(world)
    await execute(world, "UPDATE failures SET id = gen_random_uuid() WHERE error_class = 'not_found'")
    result = await world.result(cycles=1)
    assert any("without a dead letter" in each for each in result.problems)


async def test_what_is_left_behind_is_seen(world: World) -> None:
    await all_done(world)
    await execute(
        world,
        'INSERT INTO window_results (id, "window", options_sha256, result)'
        " SELECT id, 0, '', '{}' FROM failures LIMIT 1",
        "INSERT INTO child_deaths (id, deaths) SELECT id, 1 FROM failures LIMIT 1",
        "UPDATE transcript_segments SET transcription_id = gen_random_uuid()"
        " WHERE transcription_id = (SELECT id FROM transcriptions LIMIT 1)",
        "UPDATE failures SET replay_state = 'requested' WHERE error_class = 'not_found'",
    )
    result = await world.result(cycles=1)
    for problem in ("windows of a job", "deaths of a job", "without their transcription", "waits for its replay"):
        assert any(problem in each for each in result.problems), problem


async def test_a_commit_above_an_undone_record_is_seen(world: World) -> None:
    """By the auditor that looks on, although each record has its outcome in the end."""
    await world.producer.send(20)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=world.services.kafka_bootstrap, group_id=world.topic, enable_auto_commit=False
    )
    await consumer.start()
    consumer.assign([TopicPartition(world.topic, 0)])
    await consumer.commit({TopicPartition(world.topic, 0): 2})
    async with asyncio.timeout(10):
        while not world.auditor.early:
            await asyncio.sleep(0.05)
    await consumer.commit({TopicPartition(world.topic, 0): 0})
    await consumer.stop()
    async with world.daemons.running():
        assert await world.until_all_done(30)
    result = await world.result(cycles=1)
    assert (result.lost, result.duplicates) == (0, 0)
    assert result.problems == [f"2 × committed above a record that is not durable: {world.topic}/0/0"]


async def test_what_is_not_committed_at_the_end_is_seen(world: World) -> None:
    await all_done(world)
    record = world.producer.acknowledged[-1]
    world.producer.acknowledged.append(replace(record, offset=record.offset + 1))
    result = await world.result(cycles=1)
    assert any("records are not committed" in each for each in result.problems)
    assert any("no outcome yet" in each for each in result.problems)


async def test_an_orphan_is_seen_and_removed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import subprocess, sys, time; subprocess.Popen(['sleep', '60']); print('up', flush=True); time.sleep(60)"
    monkeypatch.setitem(daemons.COMMANDS, "echo", ("-c", code))
    daemon = await world.daemons.start(wait=False)
    async with asyncio.timeout(20):
        while "up" not in daemon.tail():
            await asyncio.sleep(0.02)
    assert [each.name() for each in daemon.processes()] == ["sleep"]
    await world.daemons.kill(daemon)
    assert world.daemons.orphans == 1
    assert daemon.processes() == []


async def test_a_daemon_that_does_not_end_well_is_a_problem(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(daemons.COMMANDS, "echo", ("-c", "import time; time.sleep(60)"))
    assert sys.executable
    await world.daemons.start(wait=False)
    result = await world.result(cycles=1)
    assert any("exit status -15" in each for each in result.problems)


async def test_a_fault_that_raises_or_hangs_is_a_problem(services: Services, tmp_path: Path) -> None:
    async def breaks(_world: World, _size: Size) -> Result:
        raise ValueError("broken")

    async def hangs(_world: World, _size: Size) -> Result:
        await asyncio.Event().wait()
        raise AssertionError

    class Short(Fault):
        def limit_seconds(self, size: Size) -> float:
            return 3.0  # its world has to be opened within it, too

    ran = await run_one(Fault("breaks", breaks, "raises"), Size(), services, tmp_path, print)
    assert ran.result.problems == ["ValueError: broken"]
    ran = await run_one(Short("hangs", hangs, "hangs"), Size(), services, tmp_path, print)
    assert ran.result.problems == ["not done after 3 s"]
