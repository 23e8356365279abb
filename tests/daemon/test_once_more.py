"""Failed jobs are done once more: later by themselves, or when a person asks; and each of them once."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from aiokafka import AIOKafkaProducer

from tests.daemon.conftest import World
from v2td import bundled
from v2td.bundled.recordings import AUDIO

SHORT = tuple(each for each in bundled.recordings() if each.seconds < 30)
ONCE = {"pipeline__attempts": 1}


def waiting(world: World, **settings: Any) -> dict[str, Any]:
    return {**ONCE, "kafka__retry_topic": f"{world.topic}-later", "kafka__retry_delay_seconds": 1, **settings}


async def dlq(world: World, *words: str) -> tuple[int, str]:
    """Exit code and standard output of `v2td dlq`."""
    command = (sys.executable, "-m", "v2td", "dlq", *words, "--config", str(world.folder / "config.toml"))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode or 0, out.decode()


async def until_row(world: World, query: str) -> None:
    async with asyncio.timeout(30):
        while not await world.rows(query):
            await asyncio.sleep(0.1)


async def test_a_fault_that_lasts_is_tried_again_later(world: World, flaky: dict[str, int]) -> None:
    flaky[SHORT[0].name] = 2  # two rounds fail
    await world.submit({"id": "later", "audio_url": f"{world.web}/flaky/{SHORT[0].name}"})
    async with world.daemon(**waiting(world)) as daemon:
        await until_row(world, "SELECT FROM failures WHERE replay_state = 'requested'")
        await until_row(world, "SELECT FROM transcriptions")
        assert await daemon.terminate() == 0
    (row,) = await world.rows("SELECT job_id, topic, kafka_offset, text FROM transcriptions")
    assert (row["job_id"], row["topic"], row["kafka_offset"]) == ("later", world.topic, 0)
    assert row["text"] == SHORT[0].text
    assert await world.rows("SELECT FROM failures") == []
    assert await world.dead_letter_records() == []
    assert len(await world.rows("SELECT FROM replays")) == 2
    assert await world.uncommitted() == {}


async def test_after_some_rounds_it_is_a_dead_letter(world: World, flaky: dict[str, int]) -> None:
    flaky[SHORT[0].name] = 1000
    await world.submit({"audio_url": f"{world.web}/flaky/{SHORT[0].name}"})
    async with world.daemon(**waiting(world, kafka__retry_rounds=2)) as daemon:
        await until_row(world, "SELECT FROM failures WHERE replay_state IS NULL")
        assert await daemon.terminate() == 0
    assert len(await world.dead_letter_records()) == 1
    assert len(await world.rows("SELECT FROM failures")) == 1
    assert 1000 - flaky[SHORT[0].name] >= 3  # once, and two rounds; each asks a few times by itself


async def test_waiting_survives_a_crash(world: World, flaky: dict[str, int]) -> None:
    flaky[SHORT[0].name] = 1
    await world.submit({"audio_url": f"{world.web}/flaky/{SHORT[0].name}"})
    async with world.daemon(**waiting(world, kafka__retry_delay_seconds=4)) as daemon:
        await until_row(world, "SELECT FROM failures WHERE replay_state = 'requested'")
        await daemon.kill()
    async with world.daemon(**waiting(world, kafka__retry_delay_seconds=4)) as daemon:
        await until_row(world, "SELECT FROM transcriptions")
        assert await daemon.terminate() == 0
    assert await world.rows("SELECT FROM failures") == []


async def test_a_person_asks_for_it_again(world: World) -> None:
    """The recording comes late; the job keeps its id; asked twice, sent twice, done once."""
    missing = world.folder / "late.ogg"
    settings = {**ONCE, "fetch__file_roots": [str(world.folder), str(AUDIO)]}
    await world.submit({"id": "late", "audio_url": missing.as_uri()}, {"id": "never", "audio_url": "file:///etc/x"})
    async with world.daemon(**settings) as daemon:
        await world.until_finished(2, 30)
        (before,) = await world.rows("SELECT id FROM failures WHERE job_id = 'late'")
        missing.write_bytes(SHORT[0].path.read_bytes())
        assert (await dlq(world, "replay", str(before["id"])))[0] == 0
        assert (await dlq(world, "replay", str(before["id"]), "--again"))[0] in (0, 1)  # 1: it was done by then
        await until_row(world, "SELECT FROM transcriptions")
        assert await daemon.terminate() == 0
    (after,) = await world.rows("SELECT id, job_id, kafka_offset, text FROM transcriptions")
    assert (after["id"], after["job_id"], after["kafka_offset"]) == (before["id"], "late", 0)
    assert after["text"] == SHORT[0].text
    (left,) = await world.rows("SELECT job_id FROM failures")
    assert left["job_id"] == "never"
    assert await world.uncommitted() == {}
    code, out = await dlq(world, "list", "--json")
    assert code == 0
    assert json.loads(out)["total"] == 1


async def test_a_replay_that_fails_is_a_failure_again(world: World) -> None:
    await world.submit({"id": "never", "audio_url": (world.folder / "never.ogg").as_uri()})
    settings = {**ONCE, "fetch__file_roots": [str(world.folder)]}
    async with world.daemon(**settings) as daemon:
        await world.until_finished(1, 30)
        (before,) = await world.rows("SELECT id, created_at FROM failures")
        assert (await dlq(world, "replay", str(before["id"])))[0] == 0
        await until_row(world, "SELECT FROM replays")
        assert await daemon.terminate() == 0
    (after,) = await world.rows("SELECT id, created_at, replay_state FROM failures")
    assert (after["id"], after["replay_state"]) == (before["id"], None)
    assert after["created_at"] > before["created_at"]
    assert len(await world.dead_letter_records()) == 2


async def test_a_header_that_nobody_asked_for_is_ignored(world: World) -> None:
    """A producer names another job's row: its record is done as its own, and the other's row stays."""
    await world.submit({"id": "victim", "audio_url": (world.folder / "never.ogg").as_uri()})
    settings = {**ONCE, "fetch__file_roots": [str(world.folder), str(AUDIO)]}
    async with world.daemon(**settings) as daemon:
        await world.until_finished(1, 30)
        (victim,) = await world.rows("SELECT id FROM failures")
        producer = AIOKafkaProducer(bootstrap_servers=world.services.kafka_bootstrap)
        await producer.start()
        for name in (str(victim["id"]), "no-uuid", "\xff"):
            value = json.dumps({"id": "forger", "audio_url": SHORT[0].path.as_uri()}).encode()
            await producer.send_and_wait(world.topic, value, headers=[("v2td-replay-of", name.encode("latin-1"))])
        await producer.stop()
        await world.until_finished(4, 30)
        assert await daemon.terminate() == 0
    assert len(await world.rows("SELECT FROM transcriptions WHERE job_id = 'forger'")) == 3
    assert await world.rows("SELECT FROM failures WHERE job_id = 'victim'") != []
