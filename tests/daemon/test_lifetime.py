"""Stopping and dying in the middle of work: nothing is lost, nothing is there twice, nothing is left behind."""

from __future__ import annotations

import asyncio
import signal
import sys
import time

import psutil

from tests.daemon.conftest import World, none_left
from v2td import bundled

SHORT = tuple(each for each in bundled.recordings() if each.seconds < 30)


def jobs(world: World, count: int) -> list[dict[str, object] | bytes]:
    return [
        {"id": f"job-{number}", "audio_url": f"{world.web}/{SHORT[number % len(SHORT)].name}"}
        for number in range(count)
    ]


async def each_job_once(world: World, count: int) -> None:
    rows = await world.rows("SELECT job_id, count(*) AS n FROM transcriptions GROUP BY job_id")
    assert {row["job_id"]: row["n"] for row in rows} == {f"job-{number}": 1 for number in range(count)}
    (segments,) = await world.rows(
        "SELECT count(*) AS n, count(DISTINCT (transcription_id, revision, segment_index)) AS different"
        " FROM transcript_segments"
    )
    assert segments["n"] == segments["different"] > count
    assert await world.rows("SELECT * FROM failures") == []


async def test_sigterm_in_the_middle(world: World) -> None:
    """What is under way is finished; the rest waits for the next daemon, and nothing is done twice."""
    await world.submit(*jobs(world, 60))
    async with world.daemon(pipeline__max_in_flight=8) as daemon:
        await world.until_finished(10, 60)
        assert await daemon.terminate() == 0
    first = await world.finished()
    assert 10 <= first < 60
    assert sum((await world.uncommitted()).values()) == 60 - first, "all that is durable is committed"
    async with world.daemon() as daemon:
        await world.until_finished(60, 60)
        metrics = await daemon.metrics()
        assert await daemon.terminate() == 0
    assert "v2td_write_duplicates_total 0.0" in metrics
    await each_job_once(world, 60)
    assert await world.uncommitted() == {}


async def test_kill_9_in_the_middle(world: World) -> None:
    """The next daemon does what was not durable; no row appears twice and no process stays behind."""
    await world.submit(*jobs(world, 60))
    async with world.daemon() as daemon:
        await world.until_finished(10, 60)
        children = psutil.Process(daemon.process.pid).children(recursive=True)
        assert children
        await daemon.kill()
        await none_left(children)
    assert await world.finished() < 60
    async with world.daemon() as daemon:
        await world.until_finished(60, 60)
        assert await daemon.terminate() == 0
    await each_job_once(world, 60)
    assert await world.uncommitted() == {}


async def test_a_second_signal_ends_it_at_once(world: World) -> None:
    long = next(each for each in bundled.recordings() if each.seconds > 60)
    await world.submit(*({"audio_url": f"{world.web}/{long.name}"} for _ in range(40)))
    async with world.daemon() as daemon:
        async with asyncio.timeout(30):
            while (await daemon.status())["in_flight"] == 0:
                await asyncio.sleep(0.05)
        started = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        daemon.process.send_signal(signal.SIGINT)
        code = await asyncio.wait_for(daemon.process.wait(), 5)
        assert time.monotonic() - started < 5
        assert code in (130, 128 + signal.SIGINT)
    assert sum((await world.uncommitted()).values()) >= 40 - await world.finished()


async def test_two_daemons_share_the_group(world: World) -> None:
    """Both start on an empty database at once, both work, each job is done once."""
    world.config()
    async with world.daemon() as first, world.daemon() as second:
        await world.submit(*jobs(world, 40))
        await world.until_finished(40, 60)
        assert {await first.terminate(), await second.terminate()} == {0}
    await each_job_once(world, 40)
    assert await world.uncommitted() == {}


async def test_a_service_that_is_away_is_named(world: World) -> None:
    """Nothing is consumed, and the exit code tells systemd to try again."""
    config = world.config(database__dsn="postgresql://v2td:canary@127.0.0.1:1/nowhere")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "v2td", "run", "--config", str(config)), stderr=asyncio.subprocess.PIPE
    )
    _out, error = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert b"error: " in error
    assert b"127.0.0.1" in error
    assert b"canary" not in error


async def test_the_dead_letter_topic_is_made(world: World) -> None:
    world.dead_letters += "-made"
    async with world.daemon() as daemon:
        await world.submit(b"{")
        await world.until_finished(1, 30)
        assert await daemon.terminate() == 0
    assert len(await world.dead_letter_records()) == 1


async def test_a_topic_that_is_not_there_is_named(world: World) -> None:
    config = world.config(kafka__topics=["no-such-topic"])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "v2td", "run", "--config", str(config)), stderr=asyncio.subprocess.PIPE
    )
    _out, error = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert b"there is no topic no-such-topic" in error


async def test_a_stop_while_starting(world: World) -> None:
    """The signal comes while the model loads: no child stays, and the exit code says that all is well."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "v2td", "run", "--config", str(world.config())), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    async with asyncio.timeout(30):
        while b"slots planned" not in await process.stderr.readline():
            pass
        while not psutil.Process(process.pid).children():
            await asyncio.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    _out, error = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 0, error.decode()
    await none_left(children)
