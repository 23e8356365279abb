"""One daemon transcribes through another one's API, as it would through OpenAI's: the same text as by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.daemon.conftest import Daemon, Row, World
from tests.daemon.test_journey import LONG, SHORT, word_error_rate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # two daemons, on a machine that may be busy

TOKEN = "a token of more than sixteen characters"
COST = 0.006  # for a minute


def providers(other: Daemon, **changes: object) -> list[dict[str, object]]:
    """Providers at another daemon: by the bytes as they came, and by what is packed, in chunks."""
    common: dict[str, object] = {
        "base_url": f"http://127.0.0.1:{other.port}/v1",
        "api_key": TOKEN,
        "model": "demo",
        "cost_per_minute": COST,
        **changes,
    }
    return [
        {**common, "name": "original", "codec": "original"},
        {**common, "name": "opus"},
        {**common, "name": "chunked", "codec": "flac", "chunk_seconds": 20},
    ]


@asynccontextmanager
async def api(world: World, topic: str) -> AsyncIterator[Daemon]:
    """A daemon that serves the API, and has a topic of its own."""
    async with world.daemon(
        kafka__topics=[topic], kafka__group_id=topic, api__openai=True, admin__token=TOKEN
    ) as daemon:
        yield daemon


async def rows_of(world: World) -> dict[tuple[str, str], Row]:
    """Transcriptions by recording and by who was asked."""
    rows = await world.rows("SELECT * FROM transcriptions")
    return {(row["job_id"].split("/")[0], row["job_id"].split("/")[1]): row for row in rows}


async def test_the_text_through_an_api_is_that_of_the_engine(
    world: World, topic: Callable[..., Awaitable[str]]
) -> None:
    recordings = (*SHORT[::2], *LONG)
    asked = ["local", "original", "opus", "chunked"]
    async with (
        api(world, await topic(name="api")) as other,
        world.daemon(providers__openai=providers(other)) as daemon,
    ):
        await world.submit(
            *(
                {"id": f"{each.name}/{name}", "audio_url": f"{world.web}/{each.name}", "provider": name}
                for each in recordings
                for name in asked
            )
        )
        await world.until_finished(len(recordings) * len(asked), 200)
        metrics = await daemon.metrics()
    rows = await rows_of(world)
    assert len(rows) == len(recordings) * len(asked)
    for each in recordings:
        local = rows[each.name, "local"]
        for name in asked[1:]:
            row = rows[each.name, name]
            assert (row["provider"], row["model"], row["language"]) == (name, "demo", each.language)
            assert row["speech_coverage_ratio"] > 0.9
            requests: list[dict[str, Any]] = json.loads(row["timings"])["requests"]
            sent = sum(request["audio_seconds"] for request in requests)
            assert row["cost"] == pytest.approx(COST * sent / 60, rel=0.001)
            assert word_error_rate(each.text, row["text"]) <= (0.05 if each in LONG else 0), (name, row["text"])
            assert len(requests) > 1 if name == "chunked" and each in LONG else len(requests) == 1
        assert rows[each.name, "original"]["text"] == local["text"]
        assert json.loads(rows[each.name, "original"]["timings"])["requests"][0]["kind"] == each.path.suffix[1:]
        await same_times(world, local, *(rows[each.name, name] for name in asked[1:]))
    assert 'v2td_provider_jobs_total{provider="opus",result="ok"}' in metrics


async def same_times(world: World, local: Row, *others: Row) -> None:
    """Where sentences begin and end does not hinge on who heard them."""
    query = "SELECT start_seconds, end_seconds, text FROM transcript_segments WHERE transcription_id = $1 ORDER BY 1"
    expected = await world.rows(query, local["id"])
    for row in others:
        segments = await world.rows(query, row["id"])
        if len(segments) == len(expected):
            for one, another in zip(expected, segments, strict=True):
                assert another["start_seconds"] == pytest.approx(one["start_seconds"], abs=0.3)
                assert another["end_seconds"] == pytest.approx(one["end_seconds"], abs=0.3)


async def test_words_and_channels_come_through_too(world: World, topic: Callable[..., Awaitable[str]]) -> None:
    (recording, *_) = SHORT
    async with (
        api(world, await topic(name="api")) as other,
        world.daemon(providers__openai=providers(other)),
    ):
        await world.submit(
            {
                "id": "words/opus",
                "audio_url": f"{world.web}/{recording.name}",
                "provider": "opus",
                "word_timestamps": True,
                "language": recording.language,
            },
            {"id": "split/opus", "audio_url": f"{world.web}/{recording.name}", "provider": "opus", "channels": "split"},
        )
        await world.until_finished(2, 60)
    rows = await rows_of(world)
    segments = await world.rows(
        "SELECT * FROM transcript_segments WHERE transcription_id = $1 ORDER BY start_seconds",
        rows["words", "opus"]["id"],
    )
    words = [word["word"] for segment in segments for word in json.loads(segment["words"])]
    assert word_error_rate(recording.text, " ".join(words)) == 0
    assert word_error_rate(recording.text, rows["split", "opus"]["text"]) == 0


async def test_who_is_not_there_any_more_is_stood_in_for(world: World, topic: Callable[..., Awaitable[str]]) -> None:
    """The other daemon dies with jobs under way: none is lost, and the engine does them."""
    async with (
        api(world, await topic(name="api")) as other,
        world.daemon(providers__openai=providers(other), routing__default="opus", routing__fallback=["local"]),
    ):
        await world.submit(*({"id": f"{each.name}/-", "audio_url": f"{world.web}/{each.name}"} for each in SHORT * 2))
        await world.until_finished(2, 60)
        await other.kill()
        await world.until_finished(len(SHORT) * 2, 100)
    rows = await world.rows("SELECT provider, text, job_id, route FROM transcriptions")
    texts = {f"{each.name}/-": each.text for each in SHORT}
    assert len(rows) == len(SHORT) * 2
    for row in rows:
        assert word_error_rate(texts[row["job_id"]], row["text"]) == 0
    assert {row["provider"] for row in rows} == {"opus", "local"}
    assert any(json.loads(row["route"])["tried"] for row in rows if row["provider"] == "local")


async def test_a_wrong_key_is_a_failure_that_does_not_tell_it(
    world: World, topic: Callable[..., Awaitable[str]]
) -> None:
    secret = "another token of more than sixteen characters"
    async with (
        api(world, await topic(name="api")) as other,
        world.daemon(providers__openai=providers(other, api_key=secret), pipeline__attempts=1) as daemon,
    ):
        await world.submit({"audio_url": f"{world.web}/{SHORT[0].name}", "provider": "opus"})
        await world.until_finished(1, 60)
        assert secret not in await asyncio.to_thread(daemon.log.read_text)
    (row,) = await world.rows("SELECT * FROM failures")
    assert row["error_class"] == "provider_error"
    assert "401" in row["reason"]
    assert "api_key" in row["reason"]
    assert secret not in row["reason"]
