"""A file put into a bucket becomes a transcript in Postgres and beside it; and what becomes of trouble on the way."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import World
from tests.services import minio, versitygw
from tests.services.build import built
from tests.services.versitygw import Gateways
from v2td import bundled

CLIP, OTHER = (each for each in bundled.recordings() if each.name in ("en-03.ogg", "vi-01.flac"))
BESIDE = {"output__where": "source", "output__formats": ["srt", "json"]}


@pytest.fixture
async def s3(world: World) -> AsyncIterator[Any]:
    services = world.services
    async with minio.client(services.s3_endpoint, services.s3_access_key, services.s3_secret_key) as client:
        yield client


@pytest.fixture
async def drop(world: World, notifying_bucket: str, s3: Any) -> str:
    """A bucket that announces nothing yet; its notifications would come to the daemon's topics."""
    await s3.put_bucket_notification_configuration(Bucket=notifying_bucket, NotificationConfiguration={})
    world.topics.append(world.services.notification_topic)
    return notifying_bucket


@pytest.fixture
async def gateways(tmp_path: Path) -> AsyncIterator[Gateways]:
    """Another object store, which may be killed."""
    folder = tmp_path / "gateway"
    folder.mkdir()
    async with versitygw.running(built("versitygw") / "versitygw", folder, 1) as found:
        async with minio.client(f"http://127.0.0.1:{found.ports[0]}", found.access_key, found.secret_key) as s3:
            await s3.create_bucket(Bucket="v2t-elsewhere")
        yield found


def elsewhere(gateways: Gateways, **settings: Any) -> dict[str, Any]:
    """Settings of a daemon that writes srt files to the other store."""
    store = {
        "name": "elsewhere",
        "buckets": ["v2t-elsewhere"],
        "endpoint_url": f"http://127.0.0.1:{gateways.ports[0]}",
        "access_key": gateways.access_key,
        "secret_key": gateways.secret_key,
    }
    output = {"output__bucket": "v2t-elsewhere", "output__formats": ["srt"], "output__key": "{tenant}/{stem}"}
    return {"s3__stores": [store], **output, **settings}


async def storage(world: World, command: str, **settings: Any) -> tuple[int, str]:
    """Exit code and standard output of `v2td storage`."""
    words = (sys.executable, "-m", "v2td", "storage", command, "--config", str(world.config(**settings)))
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode or 0, out.decode()


async def until_committed(world: World) -> None:
    async with asyncio.timeout(20):
        while await world.uncommitted():
            await asyncio.sleep(0.2)


async def read(s3: Any, bucket: str, key: str) -> str:
    return str((await (await s3.get_object(Bucket=bucket, Key=key))["Body"].read()).decode())


async def keys(s3: Any, bucket: str) -> list[str]:
    return [each["Key"] for each in (await s3.list_objects_v2(Bucket=bucket)).get("Contents", ())]


def announcing(world: World, bucket: str, *suffixes: str) -> dict[str, Any]:
    return {
        "storage__source_buckets": [bucket],
        "storage__notify_arn": world.services.notification_arn,
        "storage__notify_suffixes": list(suffixes),
        "output__bucket": bucket,
    }


@pytest.mark.parametrize("suffixes", [(), (".ogg", ".flac")], ids=["all announced", "recordings announced"])
async def test_a_file_dropped_into_a_bucket(world: World, drop: str, s3: Any, suffixes: tuple[str, ...]) -> None:
    settings = {**BESIDE, **announcing(world, drop, *suffixes)}
    code, told = await storage(world, "apply", **settings)
    assert code == 0, told
    assert (await storage(world, "show", **settings))[0] == 0
    dropped = {f"drop in/Gọi {number}{each.path.suffix}": each for number, each in enumerate((CLIP, OTHER))}
    skipped = f'v2td_records_skipped_total{{topic="{world.services.notification_topic}"}} 4.0'
    async with world.daemon(**settings) as daemon:
        for key, each in dropped.items():
            await s3.put_object(Bucket=drop, Key=key, Body=each.path.read_bytes())
        await world.until_finished(len(dropped), 60)
        # Where nothing filters, our own files are announced too, and MinIO says whose they are.
        await asyncio.sleep(1)
        async with asyncio.timeout(20):
            while not suffixes and skipped not in await daemon.metrics():
                await asyncio.sleep(0.2)
        await until_committed(world)
        metrics = await daemon.metrics()
        assert await daemon.terminate() == 0
    rows = {row["audio_url"]: row for row in await world.rows("SELECT * FROM transcriptions")}
    assert set(rows) == {f"s3://{drop}/{key}" for key in dropped}
    assert await world.rows("SELECT * FROM failures") == []
    stems = [key.rpartition(".")[0] for key in dropped]
    assert sorted(await keys(s3, drop)) == sorted(
        [*dropped, *(f"{stem}.{each}" for stem in stems for each in ("srt", "json"))]
    )
    for key, each in dropped.items():
        row, stem = rows[f"s3://{drop}/{key}"], key.rpartition(".")[0]
        assert row["text"] == each.text
        subtitles = await read(s3, drop, f"{stem}.srt")
        assert subtitles.count(" --> ") == len(each.segments)
        assert all(segment.text in subtitles for segment in each.segments)
        assert json.loads(await read(s3, drop, f"{stem}.json"))["text"] == row["text"]
        assert json.loads(row["timings"])["outputs"] == [f"s3://{drop}/{stem}.{each}" for each in ("srt", "json")]
    assert (skipped in metrics) is (suffixes == ())
    assert 'v2td_outputs_total{result="ok"} 4.0' in metrics


async def test_files_of_a_message_and_of_all(world: World, bucket: str, s3: Any) -> None:
    asked = {"bucket": bucket, "key": "mine/call 1", "formats": ["vtt", "txt"]}
    urls = {each.name: f"{world.web}/{each.name}" for each in (CLIP, OTHER)}
    settings = {
        "output__bucket": bucket,
        "output__formats": ["tsv"],
        "output__key": "all/{tenant}/{language}/{stem}",
        "s3__allowed_buckets": [bucket],
    }
    await world.submit(
        {"id": "asked", "audio_url": urls[CLIP.name], "output": asked, "tenant": "a/b"},
        {"id": "plain", "audio_url": urls[OTHER.name], "tenant": "acme"},
        {"id": "theirs", "audio_url": urls[CLIP.name], "output": {**asked, "bucket": "v2t-theirs"}},
    )
    async with world.daemon(**settings) as daemon:
        await world.until_finished(3, 60)
        assert await daemon.terminate() == 0
    there = sorted(await keys(s3, bucket))
    (cleaned,) = (each for each in there if each.startswith("all/a_b~"))
    assert there == sorted(["mine/call 1.vtt", "mine/call 1.txt", "all/acme/vi/vi-01.tsv", cleaned])
    assert cleaned.endswith("/en/en-03.tsv")
    assert await read(s3, bucket, "mine/call 1.txt") == "".join(f"{each.text}\n" for each in CLIP.segments)
    (failed,) = await world.rows("SELECT * FROM failures")
    assert (failed["job_id"], failed["error_class"]) == ("theirs", "output_error")
    assert "neither in s3.allowed_buckets nor output.bucket" in failed["reason"]


async def test_files_come_before_the_row(world: World, bucket: str, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the two, the daemon writes the same files again, and then the one row."""
    settings = {
        "output__bucket": bucket,
        "output__formats": ["json"],
        "output__key": "{id}",
        "testing__failpoints": True,
    }
    await world.submit({"audio_url": f"{world.web}/{CLIP.name}"})
    monkeypatch.setenv("V2TD_FAILPOINTS", "pipeline.output_written=kill")
    async with world.daemon(**settings) as daemon:
        assert await asyncio.wait_for(daemon.process.wait(), 60) != 0
    assert await world.finished() == 0
    (key,) = await keys(s3, bucket)
    first = await read(s3, bucket, key)
    monkeypatch.delenv("V2TD_FAILPOINTS")
    async with world.daemon(**settings) as daemon:
        await world.until_finished(1, 60)
        assert await daemon.terminate() == 0
    (row,) = await world.rows("SELECT id FROM transcriptions")
    assert key == f"{row['id']}.json"
    assert await keys(s3, bucket) == [key]
    assert await read(s3, bucket, key) == first


async def test_a_bug_in_writing_costs_one_job(world: World, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"output__bucket": bucket, "output__formats": ["srt"], "testing__failpoints": True}
    await world.submit({"audio_url": f"{world.web}/{CLIP.name}"}, {"audio_url": f"{world.web}/{OTHER.name}"})
    monkeypatch.setenv("V2TD_FAILPOINTS", "pipeline.output_written=raise")  # the first time
    async with world.daemon(**settings) as daemon:
        await world.until_finished(2, 60)
        assert await daemon.terminate() == 0
    (failed,) = await world.rows("SELECT error_class, reason FROM failures")
    assert failed["error_class"] == "poison"
    assert "FailpointError" in failed["reason"]
    assert len(await world.rows("SELECT FROM transcriptions")) == 1


@pytest.mark.parametrize("on_error", ["fail", "ignore"])
async def test_a_store_that_is_away(world: World, gateways: Gateways, on_error: str) -> None:
    gateways.kill(gateways.ports[0])
    await world.submit({"audio_url": f"{world.web}/{CLIP.name}"})
    async with world.daemon(**elsewhere(gateways, output__on_error=on_error)) as daemon:
        await world.until_finished(1, 60)
        metrics = await daemon.metrics()
        assert await daemon.terminate() == 0
    assert 'v2td_outputs_total{result="failed"} 3.0' in metrics  # pipeline.attempts
    heard, failed = await world.rows("SELECT * FROM transcriptions"), await world.rows("SELECT * FROM failures")
    if on_error == "ignore":
        assert heard[0]["text"] == CLIP.text
        assert "could not be written" in json.loads(heard[0]["timings"])["outputs_failed"]
        assert failed == []
    else:
        assert heard == []
        assert failed[0]["error_class"] == "output_error"
        assert len(await world.dead_letter_records()) == 1
    assert gateways.secret_key not in daemon.log.read_text()


async def test_a_store_that_comes_back(world: World, gateways: Gateways) -> None:
    port = gateways.ports[0]
    gateways.kill(port)
    await world.submit({"audio_url": f"{world.web}/{CLIP.name}", "tenant": "acme"})
    patient = {"pipeline__attempts": 50, "pipeline__retry_max_seconds": 0.5}
    async with world.daemon(**elsewhere(gateways, **patient)) as daemon:
        async with asyncio.timeout(60):
            while 'v2td_outputs_total{result="failed"} 0.0' in await daemon.metrics():
                await asyncio.sleep(0.2)
        assert await world.finished() == 0
        await gateways.start(port)
        await world.until_finished(1, 60)
        assert await daemon.terminate() == 0
    (row,) = await world.rows("SELECT * FROM transcriptions")
    assert json.loads(row["timings"])["outputs"] == ["s3://v2t-elsewhere/acme/en-03.srt"]
    async with minio.client(f"http://127.0.0.1:{port}", gateways.access_key, gateways.secret_key) as s3:
        subtitles = await read(s3, "v2t-elsewhere", "acme/en-03.srt")
    assert all(each.text in subtitles for each in CLIP.segments)


async def test_a_store_that_is_away_for_long(world: World, gateways: Gateways) -> None:
    """With a retry topic a job waits there while its files cannot be written, and no dead letter is sent."""
    port = gateways.ports[0]
    gateways.kill(port)
    await world.submit({"audio_url": f"{world.web}/{CLIP.name}", "tenant": "acme"})
    later = {"kafka__retry_topic": f"{world.topic}-later", "kafka__retry_delay_seconds": 1, "pipeline__attempts": 1}
    async with world.daemon(**elsewhere(gateways, **later)) as daemon:
        async with asyncio.timeout(60):
            while not await world.rows("SELECT FROM failures WHERE replay_state = 'requested'"):
                await asyncio.sleep(0.1)
            await gateways.start(port)
            while not await world.rows("SELECT FROM transcriptions"):
                await asyncio.sleep(0.2)
        assert await daemon.terminate() == 0
    assert await world.rows("SELECT FROM failures") == []
    assert await world.dead_letter_records() == []
