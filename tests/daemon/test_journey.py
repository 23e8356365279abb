"""The whole chain: a recording named in Kafka becomes a row in Postgres, and only then is its offset committed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import jiwer
import psutil
import pytest

from tests.daemon.conftest import World, none_left
from tests.services import minio
from v2td import bundled
from v2td.bundled import Recording
from v2td.jobs import Coordinates

SHORT = tuple(each for each in bundled.recordings() if each.seconds < 30)
LONG = tuple(each for each in bundled.recordings() if each.seconds >= 30)


def spoken(text: str) -> str:
    """Words alone: what a word error rate compares."""
    return " ".join("".join(letter for letter in text.lower() if letter.isalnum() or letter.isspace()).split())


def word_error_rate(truth: str, heard: str) -> float:
    return float(jiwer.wer(spoken(truth), spoken(heard)))


async def test_every_bundled_recording_is_heard(world: World) -> None:
    recordings = bundled.recordings()
    await world.submit(*({"id": each.name, "audio_url": f"{world.web}/{each.name}"} for each in recordings))
    async with world.daemon() as daemon:
        await world.until_finished(len(recordings), 60)
        assert await daemon.terminate() == 0
    rows = {row["job_id"]: row for row in await world.rows("SELECT * FROM transcriptions")}
    assert set(rows) == {each.name for each in recordings}
    for each in recordings:
        row = rows[each.name]
        assert row["language"] == each.language
        # The bundled files were picked because the model gets them right; another CPU may round differently.
        assert word_error_rate(each.text, row["text"]) <= (0.02 if each in LONG else 0.0)
        assert row["audio_seconds"] == pytest.approx(each.seconds, abs=0.05)
        assert row["speech_coverage_ratio"] > 0.9
        assert not row["truncated"]
        assert row["id"] == coordinates(row).row_id()
        await check_segments(world, row, each)
    total_truth = " ".join(each.text for each in recordings)
    total_heard = " ".join(rows[each.name]["text"] for each in recordings)
    assert word_error_rate(total_truth, total_heard) <= 0.01
    assert await world.uncommitted() == {}


def coordinates(row: dict[str, object]) -> Coordinates:
    stamp = row["record_timestamp"]
    assert isinstance(stamp, datetime)
    return Coordinates(
        str(row["cluster_id"]),
        str(row["topic"]),
        int(str(row["kafka_partition"])),
        int(str(row["kafka_offset"])),
        round(stamp.timestamp() * 1000),
        int(str(row["record_index"])),
    )


async def check_segments(world: World, row: dict[str, object], recording: Recording) -> None:
    segments = await world.rows(
        "SELECT * FROM transcript_segments WHERE transcription_id = $1 ORDER BY segment_index", row["id"]
    )
    assert [each["segment_index"] for each in segments] == list(range(len(segments)))
    assert len(segments) == len(recording.segments)
    for heard, true in zip(segments, recording.segments, strict=True):
        assert heard["start_seconds"] == pytest.approx(true.start, abs=0.5)
        assert heard["end_seconds"] == pytest.approx(true.end, abs=0.5)
        assert heard["created_at"] == row["created_at"]


@pytest.mark.slow
async def test_200_jobs_from_everywhere(world: World, notifying_bucket: str) -> None:
    """http, s3, file and bucket notifications, short ones, with two long ones in the middle."""
    world.topics.append(world.services.notification_topic)
    s3_options = (world.services.s3_endpoint, world.services.s3_access_key, world.services.s3_secret_key)
    async with minio.client(*s3_options) as s3:
        for each in SHORT:
            await s3.put_object(Bucket=notifying_bucket, Key=f"drop in/{each.name}", Body=each.path.read_bytes())
    messages: list[dict[str, object] | bytes] = []
    truth: dict[str, str] = {}
    for number in range(188):
        each = LONG[number // 60 - 1] if number in (60, 120) else SHORT[number % len(SHORT)]
        source = (
            f"{world.web}/{each.name}",
            each.path.as_uri(),
            f"s3://{notifying_bucket}/drop in/{each.name}" if each in SHORT else each.path.as_uri(),
        )[number % 3]
        truth[f"job-{number}"] = each.text
        messages.append(
            {"id": f"job-{number}", "audio_url": source, "language": each.language, "metadata": {"n": number}}
        )
    bad: list[bytes] = [b"{", b"[]", b'{"id": "no url"}', b'{"audio_url": "ftp://x/y"}', b'{"audio_url": "a", "b": 1}']
    await world.submit(*messages, *bad)
    expected = len(messages) + len(SHORT) + len(bad)
    assert len(messages) + len(SHORT) == 200
    async with world.daemon() as daemon:
        await world.until_finished(expected, 110)
        # The last commit is at most a second behind the last row.
        async with asyncio.timeout(10):
            while await world.uncommitted():
                await asyncio.sleep(0.2)
        metrics = await daemon.metrics()
        assert await daemon.terminate() == 0
    rows = await world.rows("SELECT * FROM transcriptions")
    named = {row["job_id"]: row for row in rows if row["job_id"] is not None}
    assert set(named) == set(truth)
    for job, text in truth.items():
        assert word_error_rate(text, named[job]["text"]) <= 0.15, job
        assert named[job]["metadata"] == f'{{"n": {job.removeprefix("job-")}}}'
    dropped = {row["audio_url"]: row["text"] for row in rows if row["job_id"] is None}
    assert len(dropped) == len(SHORT)
    for each in SHORT:
        heard = dropped[f"s3://{notifying_bucket}/drop in/{each.name}"]
        assert word_error_rate(each.text, heard) <= 0.15, each.name
    failures = await world.rows("SELECT error_class FROM failures")
    assert sorted(row["error_class"] for row in failures) == ["bad_message"] * 4 + ["url_forbidden"]
    assert len(await world.dead_letter_records()) == len(bad)
    assert f'v2td_jobs_finished_total{{outcome="transcribed"}} {len(rows)}.0' in metrics
    assert "v2td_write_duplicates_total 0.0" in metrics
    assert await world.uncommitted() == {}


async def test_failures_have_rows_and_dead_letters(world: World) -> None:
    expired = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    good = f"{world.web}/{SHORT[0].name}"
    await world.submit(
        b"not json",
        None,
        {"id": "gone", "audio_url": f"{world.web}/nowhere.wav?secret=canary"},
        {"id": "outside", "audio_url": "file:///etc/passwd"},
        {"id": "late", "audio_url": good, "expires_at": expired},
        {"id": "soon", "audio_url": good, "webhook_url": "https://example.com/hook"},
        {"id": "picture", "audio_url": f"{world.web}/manifest.json"},
    )
    async with world.daemon() as daemon:
        await world.until_finished(7, 60)
        assert await daemon.terminate() == 0
    rows = await world.rows("SELECT * FROM failures ORDER BY kafka_partition, kafka_offset")
    classes = {row["job_id"]: row["error_class"] for row in rows if row["job_id"]}
    assert classes == {
        "gone": "not_found",
        "outside": "url_forbidden",
        "late": "expired",
        "soon": "bad_field",
        "picture": "not_audio",
    }
    assert sum(row["error_class"] == "bad_message" for row in rows) == 2
    letters = {dict(each.headers)["v2td-id"].decode(): each for each in await world.dead_letter_records()}
    assert set(letters) == {str(row["id"]) for row in rows}
    for row in rows:
        headers = dict(letters[str(row["id"])].headers)
        assert headers["v2td-error-class"].decode() == row["error_class"]
        assert headers["source"] == b"test"
        assert letters[str(row["id"])].key == b"key"
        assert letters[str(row["id"])].value == row["payload"]
        assert "canary" not in row["reason"]
        assert "canary" not in (row["audio_url"] or "")
    assert "canary" not in daemon.log.read_text()
    assert await world.uncommitted() == {}


async def test_without_an_object_store_its_urls_fail_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    good = {"id": "ok", "audio_url": SHORT[0].path.as_uri()}
    await world.submit({"id": "s3", "audio_url": "s3://any/thing.wav"}, good)
    nothing = {"s3__access_key": None, "s3__secret_key": None, "s3__endpoint_url": None}
    async with world.daemon(pipeline__retry_max_seconds=0.3, **nothing) as daemon:
        await world.until_finished(2, 60)
        assert await daemon.terminate() == 0
    (failed,) = await world.rows("SELECT * FROM failures")
    assert (failed["job_id"], failed["error_class"], failed["attempts"]) == ("s3", "access_denied", 3)
    (heard,) = await world.rows("SELECT * FROM transcriptions")
    assert heard["text"] == SHORT[0].text


async def test_a_fault_that_passes_is_tried_again(world: World, flaky: dict[str, int]) -> None:
    passes, stays = SHORT[0], SHORT[1]
    flaky.update({passes.name: 2, stays.name: 99})
    await world.submit(
        {"id": "passes", "audio_url": f"{world.web}/flaky/{quote(passes.name)}"},
        {"id": "stays", "audio_url": f"{world.web}/flaky/{quote(stays.name)}"},
    )
    async with world.daemon() as daemon:
        await world.until_finished(2, 60)
        assert await daemon.terminate() == 0
    (heard,) = await world.rows("SELECT * FROM transcriptions")
    assert (heard["job_id"], heard["text"]) == ("passes", passes.text)
    (failed,) = await world.rows("SELECT * FROM failures")
    assert (failed["job_id"], failed["error_class"], failed["attempts"]) == ("stays", "http_error", 3)


async def test_status_and_health(world: World) -> None:
    async with world.daemon() as daemon:
        status = await daemon.status()
        assert status["ready"] is True
        assert status["model"] == "demo"
        assert {each["partition"] for each in status["partitions"]} == {0, 1, 2, 3}
        assert all(slot["state"] == "idle" for slot in status["slots"])
        children = psutil.Process(daemon.process.pid).children(recursive=True)
        pinned = [child.cpu_affinity() for child in children if child.pid in {slot["pid"] for slot in status["slots"]}]
        assert all(cpus is not None and len(cpus) == 1 for cpus in pinned)
        (instance,) = await world.rows("SELECT * FROM instances")
        assert instance["pid"] == daemon.process.pid
        assert instance["slots"] == len(status["slots"])
        assert await daemon.terminate() == 0
        await none_left(children)
    assert not any((world.folder / "spool").iterdir())
