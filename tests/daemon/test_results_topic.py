"""kafka.results_topic: whoever reads it knows each outcome, whatever happens to the daemon in between."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from tests.daemon.conftest import World
from tests.daemon.test_redo import redo
from v2td import bundled, failpoints

SHORT = tuple(each for each in bundled.recordings() if each.seconds < 30)


def telling(world: World, **more: Any) -> dict[str, Any]:
    return {"kafka__results_topic": f"{world.topic}-results", "pipeline__attempts": 1, **more}


async def told(world: World) -> list[dict[str, Any]]:
    """All results, with `key`, and `header` for the one that readers go by."""
    found = await world.records(f"{world.topic}-results")
    return [
        {"key": each.key, "header": dict(each.headers)["v2td-id"].decode(), **json.loads(each.value)} for each in found
    ]


async def until_resolved(world: World) -> None:
    async with asyncio.timeout(60):
        while await world.uncommitted():
            await asyncio.sleep(0.2)


async def killed(world: World, place: str, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
    """Run a daemon until it comes there."""
    with monkeypatch.context() as patch:
        patch.setenv(failpoints.VARIABLE, f"{place}=kill")
        async with world.daemon(**telling(world, testing__failpoints=True, **settings)) as daemon:
            await asyncio.wait_for(daemon.process.wait(), 60)


async def test_outcomes_are_told(world: World) -> None:
    """One result for each job, also of a message that names several; none where the records name nothing."""
    prefix = {"eventName": "s3:ObjectCreated:Put"}
    entries = [{**prefix, "s3": {"bucket": {"name": "nowhere"}, "object": {"key": f"{n}.wav"}}} for n in range(2)]
    await world.submit(
        {"id": "heard", "audio_url": f"{world.web}/{SHORT[0].name}"},
        {"id": "missing", "audio_url": f"{world.web}/nothing.wav"},
        b"no JSON",
        {"Records": entries},
        {"Records": [{"eventName": "s3:ObjectRemoved:Delete"}]},
    )
    async with world.daemon(**telling(world)) as daemon:
        await world.until_finished(5, 60)
        await until_resolved(world)
        assert await daemon.terminate() == 0
    results = {each["id"]: each for each in await told(world)}
    transcriptions = {str(row["id"]): row for row in await world.rows("SELECT * FROM transcriptions")}
    failures = {str(row["id"]): row for row in await world.rows("SELECT * FROM failures")}
    assert set(results) == {*transcriptions, *failures}
    assert len(results) == 5
    assert all(each["header"] == row_id and each["key"] == b"key" for row_id, each in results.items())
    ((heard, row),) = transcriptions.items()
    assert (results[heard]["status"], results[heard]["text"]) == ("transcribed", SHORT[0].text)
    assert {results[heard][name] == row[name] for name in ("model", "provider", "language", "audio_seconds")} == {True}
    for row_id, failure in failures.items():
        assert results[row_id]["status"] == "failed"
        for name in ("job_id", "error_class", "reason", "attempts", "record_index", "audio_url"):
            assert results[row_id][name] == failure[name]


async def test_a_daemon_that_dies_before_it_tells_leaves_that_to_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.submit({"id": "heard", "audio_url": f"{world.web}/{SHORT[0].name}"})
    await killed(world, "pipeline.written", monkeypatch)
    assert (await told(world), await world.finished()) == ([], 1), "it is durable, and nobody knows"
    async with world.daemon(**telling(world)) as daemon:
        await until_resolved(world)
        assert "v2td_jobs_known_total 1.0" in await daemon.metrics(), "it was not transcribed again"
        assert "v2td_results_told_total 1.0" in await daemon.metrics()
        assert await daemon.terminate() == 0
    (result,) = await told(world)
    assert (result["job_id"], result["text"]) == ("heard", SHORT[0].text)


async def test_a_daemon_that_dies_after_it_told_makes_a_repetition(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.submit({"id": "missing", "audio_url": f"{world.web}/nothing.wav"})
    await killed(world, "pipeline.told", monkeypatch)
    assert len(await told(world)) == 1
    async with world.daemon(**telling(world)) as daemon:
        await until_resolved(world)
        assert await daemon.terminate() == 0
    first, again = await told(world)
    assert first == again


@pytest.mark.parametrize("gone", [False, True], ids=["done", "failed"])
async def test_what_was_done_again_is_told_though_the_daemon_died(
    world: World, monkeypatch: pytest.MonkeyPatch, *, gone: bool
) -> None:
    recording = world.folder / "call.flac"
    recording.write_bytes(SHORT[0].path.read_bytes())
    roots = {"fetch__file_roots": [str(world.folder)]}
    await world.submit({"id": "call", "audio_url": recording.as_uri()})
    async with world.daemon(**telling(world, **roots)) as daemon:
        await world.until_finished(1, 60)
        await until_resolved(world)
        assert await daemon.terminate() == 0
    if gone:
        recording.unlink()
    assert (await redo(world, "--job", "call", "--provider", "local", "--no-wait", **roots)).code == 0
    await killed(world, "pipeline.written", monkeypatch, **roots)
    assert len(await told(world)) == 1
    async with world.daemon(**telling(world, **roots)) as daemon:
        await until_resolved(world)
        assert await daemon.terminate() == 0
    first, second = await told(world)
    assert (first["id"], first["offset"], first["revision"], second["revision"]) == (
        second["id"],
        second["offset"],
        0,
        1,
    )
    assert (second["status"], second["error_class"]) == (("failed", "not_found") if gone else ("transcribed", None))


async def test_a_topic_that_is_deleted_is_made_again(world: World) -> None:
    """And nothing is lost that came meanwhile."""
    async with world.daemon(**telling(world, kafka__metadata_max_age_seconds=1)) as daemon:
        admin = AIOKafkaAdminClient(bootstrap_servers=world.services.kafka_bootstrap)
        await admin.start()
        await admin.delete_topics([f"{world.topic}-results"])
        await admin.close()
        await world.submit({"id": "heard", "audio_url": f"{world.web}/{SHORT[0].name}"})
        await world.until_finished(1, 60)
        await until_resolved(world)
        assert await daemon.terminate() == 0
    assert [each["job_id"] for each in await told(world)] == ["heard"]
