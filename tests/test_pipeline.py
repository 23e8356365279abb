"""A job's journey through the real rooms, but for the store and Kafka, which tests/daemon has."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast
from uuid import UUID

import numpy as np
import pytest

from tests.living import freeze
from tests.speech import sounds
from v2td import bundled
from v2td.attempt import Hearers
from v2td.bundled.recordings import AUDIO
from v2td.commands import Commands
from v2td.config import EngineSettings, FetchSettings, KafkaSettings, PipelineSettings, Settings, SpeechSettings
from v2td.delivery import Delivery
from v2td.engine import Engine, find_model, plan, read_machine
from v2td.errors import ErrorClass, JobError, NoRoomError
from v2td.fetch import Downloader
from v2td.intake import DeadLetters
from v2td.jobs import Audio, Coordinates, Failure, Job, Options, Outcome, SourceRecord, Transcript
from v2td.limit import Deadlines
from v2td.local import Local
from v2td.outputs import Outputs
from v2td.pipeline import Pipeline, Rooms
from v2td.progress import Journals
from v2td.providers import Providers
from v2td.replays import Replays
from v2td.speech import Decoders
from v2td.store import Database, Writer
from v2td.store.entry import Durable
from v2td.store.rows import segment_rows

pytestmark = pytest.mark.slow

SHORT, LONG = (
    next(each for each in bundled.recordings() if each.language == "en" and (each.seconds > 60) is long)
    for long in (False, True)
)


class Recorder:
    """Stands for the dead letters and the writer: keeps what it was given, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, object]] = []

    async def send(self, failure: Failure) -> None:
        self.seen.append(("dead letter", failure))

    async def write(self, outcome: Outcome) -> Durable:
        self.seen.append(("row", outcome))
        return Durable(outcome, new=True)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        engine=EngineSettings(model="demo", slots=1),
        fetch=FetchSettings(file_roots=(AUDIO, tmp_path), spool_dir=tmp_path / "spool"),
        pipeline=PipelineSettings(attempts=2, retry_initial_seconds=0.05, retry_max_seconds=0.1),
    )


@pytest.fixture
async def rooms(settings: Settings, recorder: Recorder) -> AsyncIterator[Rooms]:
    async with AsyncExitStack() as stack:
        downloader = await stack.enter_async_context(Downloader(settings.fetch, settings.s3))
        decoders = await stack.enter_async_context(Decoders(SpeechSettings(), 1, downloader.folders))
        layout = plan(read_machine(), settings.engine)
        engine = await stack.enter_async_context(
            Engine(settings.engine, settings.quality, layout, find_model(settings.engine))
        )
        running = asyncio.create_task(engine.run())
        nowhere = cast("Database", None)  # nothing is looked up: no job was begun before, and none is replayed
        journals = Journals(nowhere, settings.engine.model, 0)
        local = Local(engine, journals, settings)
        providers = await stack.enter_async_context(Providers(settings, local))
        yield Rooms(
            Hearers(downloader, decoders, local, providers, None, journals),
            Outputs(settings.output, downloader.store),
            Delivery(cast("DeadLetters", recorder), cast("Writer", recorder), None, nowhere),
            journals,
            Replays(nowhere, settings),
            Commands(nowhere, settings),
        )
        running.cancel()


def job(path: Path, offset: int = 0, **fields: object) -> Job:
    made = Job(coordinates=Coordinates("cluster", "topic", 0, offset, 1_700_000_000_000), audio_url=path.as_uri())
    return replace(made, **fields)  # type: ignore[arg-type]  # any of Job's fields


async def test_a_transcript_says_what_it_cost(rooms: Rooms, settings: Settings) -> None:
    outcome = await Pipeline(rooms, settings, 2).transcribe(job(SHORT.path, options=Options(word_timestamps=True)))
    assert isinstance(outcome, Transcript)
    assert outcome.text == SHORT.text
    assert outcome.language == "en"
    assert outcome.language_probability is not None
    assert outcome.audio_bytes == SHORT.path.stat().st_size
    assert set(outcome.timings) == {
        "attempts",
        "fetch",
        "queue",
        "prepare",
        "transcribe",
        "redone_windows",
        "flags",
        "windows",
    }
    assert (outcome.timings["redone_windows"], outcome.timings["flags"]) == (0, [])
    (window,) = outcome.timings["windows"]
    assert set(window) >= {"index", "slot", "start", "seconds", "flags"}
    assert 0 < window["seconds"] <= outcome.duration_seconds
    (segment,) = outcome.segments
    assert segment.words is not None
    assert [word.text.strip() for word in segment.words] == SHORT.text.split()
    assert all(segment.start <= word.start <= word.end <= segment.end for word in segment.words)


async def test_silence_is_a_transcript_without_text(rooms: Rooms, settings: Settings, tmp_path: Path) -> None:
    import wave

    silence = tmp_path / "silence.wav"
    with wave.open(str(silence), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 16000 * 5))
    outcome = await Pipeline(rooms, settings, 2).transcribe(job(silence))
    assert isinstance(outcome, Transcript)
    assert (outcome.text, outcome.segments, outcome.language) == ("", (), None)
    assert outcome.speech_coverage_ratio is None
    assert outcome.audio_seconds == pytest.approx(5, abs=0.01)


async def test_a_transcript_says_what_is_missing(rooms: Rooms, settings: Settings, tmp_path: Path) -> None:
    cut = tmp_path / "cut.wav"
    whole = sounds.encode(sounds.read(SHORT.path), tmp_path / "whole.wav").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    outcome = await Pipeline(rooms, settings, 2).transcribe(job(cut))
    assert isinstance(outcome, Transcript)
    assert outcome.truncated
    assert outcome.timings["damage"] == {
        "bad_packets": 0,
        "missing_seconds": pytest.approx(outcome.audio_seconds, abs=0.1),
    }


async def test_an_attempt_that_takes_too_long_is_tried_again_and_fails(
    rooms: Rooms, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline is moved to the past whenever a window starts: each attempt ends while its first one runs."""
    monkeypatch.setattr(Deadlines, "_end", lambda *_: 0.0)
    outcome = await Pipeline(rooms, settings, 2).transcribe(job(LONG.path))
    assert isinstance(outcome, Failure)
    assert (outcome.error_class, outcome.attempts) == (ErrorClass.TIMEOUT, 2)


async def test_the_deadline_grows_with_the_audio(rooms: Rooms, settings: Settings) -> None:
    hurried = PipelineSettings.model_construct(**dict(settings.pipeline) | {"attempt_seconds": 0.001, "job_seconds": 1})
    pipeline = Pipeline(rooms, Settings.model_construct(**dict(settings) | {"pipeline": hurried}), 2)
    outcome = await pipeline.transcribe(job(LONG.path))  # twice its 88 seconds is plenty
    assert isinstance(outcome, Transcript)


async def test_the_two_parties_of_a_call(rooms: Rooms, settings: Settings, tmp_path: Path) -> None:
    """Each in a language of its own; the second begins while the first still speaks."""
    agent, caller = sounds.bundled("en-04.ogg"), sounds.bundled("vi-03.ogg")
    delay = 3.0
    delayed = np.concatenate([sounds.silence(delay), sounds.read(caller.path)])
    call = sounds.encode_channels([sounds.read(agent.path), delayed], tmp_path / "call.wav")
    outcome = await Pipeline(rooms, settings, 2).transcribe(job(call, options=Options(channels="split")))
    assert isinstance(outcome, Transcript)
    assert outcome.audio_seconds == pytest.approx(max(agent.seconds, delay + caller.seconds), abs=0.1)
    assert outcome.timings["channel_languages"] == {"0": "en", "1": "vi"}
    for channel, (party, offset) in enumerate(((agent, 0.0), (caller, delay))):
        said = [segment for segment in outcome.segments if segment.channel == channel]
        assert " ".join(segment.text.strip() for segment in said) == party.text
        assert said[0].start == pytest.approx(party.segments[0].start + offset, abs=0.5)
        assert said[-1].end == pytest.approx(party.segments[-1].end + offset, abs=0.5)
    starts = [segment.start for segment in outcome.segments]
    assert starts == sorted(starts)
    assert {segment.channel for segment in outcome.segments[:-1]} == {0, 1}, "they are merged by time"
    assert 0.95 < outcome.covered_seconds / outcome.speech_seconds <= 1
    assert [row.channel for row in segment_rows(outcome)] == [segment.channel for segment in outcome.segments]


async def test_a_topic_may_be_in_a_language(rooms: Rooms, settings: Settings) -> None:
    kafka = KafkaSettings(topics=("topic",), topic_languages=("topic=vi",))
    pipeline = Pipeline(rooms, settings.model_copy(update={"kafka": kafka}), 2)
    for options, language in (
        (Options(), "vi"),
        (Options(language="en"), "en"),
        (Options(languages=("en",)), "en"),
        (Options(multilingual=True), "en"),
    ):
        outcome = await pipeline.transcribe(job(SHORT.path, options=options))
        assert isinstance(outcome, Transcript)
        assert outcome.language == language, options
        if options == Options():
            assert (outcome.job.options.language, outcome.language_probability) == ("vi", None)


@pytest.mark.parametrize("places", [1, 4], ids=["for a place", "for a slot"])
async def test_a_job_that_waits_too_long_expires_at_once(rooms: Rooms, settings: Settings, places: int) -> None:
    """What is being transcribed does not: it began in time."""
    (slot,) = rooms.hearers.local._engine._slots
    assert slot.child.pid is not None
    pipeline = Pipeline(rooms, settings, places)
    freeze(slot.child.pid)
    try:
        async with asyncio.TaskGroup() as group:
            soon = datetime.now(UTC) + timedelta(seconds=2)
            begun = group.create_task(pipeline.transcribe(job(SHORT.path, expires_at=soon)))
            async with asyncio.timeout(10):
                while slot.state != "busy":
                    await asyncio.sleep(0.01)
            outcome = await pipeline.transcribe(job(LONG.path, 1, expires_at=soon))
            assert isinstance(outcome, Failure)
            assert (outcome.error_class, outcome.attempts) == (ErrorClass.EXPIRED, 1)
            assert 0 <= (datetime.now(UTC) - soon).total_seconds() < 1
            assert rooms.hearers.local._engine.status()["queued_windows"] == 0
            os.kill(slot.child.pid, signal.SIGCONT)
        assert isinstance(begun.result(), Transcript)
    finally:
        os.kill(slot.child.pid, signal.SIGCONT)


async def test_expired_jobs_are_not_fetched(rooms: Rooms, settings: Settings) -> None:
    late = job(AUDIO / "nowhere", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    outcome = await Pipeline(rooms, settings, 2).transcribe(late)
    assert isinstance(outcome, Failure)
    assert outcome.error_class == ErrorClass.EXPIRED


async def test_a_failure_sends_its_letter_before_its_row(rooms: Rooms, settings: Settings, recorder: Recorder) -> None:
    at = Coordinates("cluster", "topic", 0, 7, 1_700_000_000_000)
    await Pipeline(rooms, settings, 2).handle(at, SourceRecord(None, b"{", ()), frozenset())
    assert [kind for kind, _ in recorder.seen] == ["dead letter", "row"]


async def test_what_is_durable_is_not_done_again(rooms: Rooms, settings: Settings, recorder: Recorder) -> None:
    at = Coordinates("cluster", "topic", 0, 7, 1_700_000_000_000)
    record = SourceRecord(None, b'{"audio_url": "%s"}' % SHORT.path.as_uri().encode(), ())
    pipeline = Pipeline(rooms, settings, 2)
    await pipeline.handle(at, record, frozenset({at.row_id()}))
    assert recorder.seen == []
    await pipeline.handle(at, record, frozenset())
    assert [kind for kind, _ in recorder.seen] == ["row"]


async def test_what_a_record_replayed_is_told_though_nobody_looked_back(
    rooms: Rooms, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was durable could not be asked when the partition was assigned; the record finds its failure replayed."""
    told: list[Collection[UUID]] = []

    async def nothing_to_do(_at: Coordinates, _record: SourceRecord) -> tuple[Job | Failure, ...]:
        return ()

    async def tell_again(ids: Collection[UUID], _record: SourceRecord) -> None:
        told.append(ids)

    monkeypatch.setattr(rooms.replays, "jobs_of", nothing_to_do)
    monkeypatch.setattr(rooms.delivery, "tell_again", tell_again)
    at = Coordinates("cluster", "topic", 0, 7, 1_700_000_000_000)
    pipeline = Pipeline(rooms, settings, 2)
    for header in ("v2td-replay-of", "v2td-redo-of", "trace"):
        await pipeline.handle(at, SourceRecord(None, b"{}", ((header, b"whatever"),)), frozenset())
    assert told == [{at.row_id()}, {at.row_id()}, frozenset()]


async def test_a_cancelled_job_leaves_nothing_behind(rooms: Rooms, settings: Settings, tmp_path: Path) -> None:
    task = asyncio.create_task(Pipeline(rooms, settings, 2).transcribe(job(LONG.path)))
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rooms.hearers.local._engine.status()["queued_windows"] == 0
    outcome = await Pipeline(rooms, settings, 2).transcribe(job(SHORT.path))
    assert isinstance(outcome, Transcript)
    assert outcome.text == SHORT.text


async def test_a_full_tmpfs_is_waited_for(rooms: Rooms, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full three times, more often than a job may try: no attempt is counted, nothing fails."""
    full = iter([True, True, True])
    fetch = rooms.hearers.downloader.fetch

    async def fetch_into_a_full_spool(url: str, version_id: str | None) -> Audio:
        if next(full, False):
            raise NoRoomError("spool", "full", "make room")
        return await fetch(url, version_id)

    monkeypatch.setattr(rooms.hearers.downloader, "fetch", fetch_into_a_full_spool)
    monkeypatch.setattr("v2td.pipeline.NO_ROOM_SECONDS", 0.05)
    outcome = await Pipeline(rooms, settings, 2).transcribe(job(SHORT.path))
    assert isinstance(outcome, Transcript)
    assert outcome.timings["attempts"] == 1


async def test_one_notification_does_not_start_a_thousand_jobs(
    rooms: Rooms, settings: Settings, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = settings.model_copy(update={"pipeline": settings.pipeline.model_copy(update={"max_in_flight": 3})})
    under_way: list[int] = []
    inside = 0

    async def fetch(url: str, _version_id: str | None) -> Audio:
        nonlocal inside
        inside += 1
        under_way.append(inside)
        await asyncio.sleep(0)
        inside -= 1
        raise JobError(ErrorClass.NOT_FOUND, url)

    monkeypatch.setattr(rooms.hearers.downloader, "fetch", fetch)
    records = [
        {
            "eventName": "s3:ObjectCreated:Put",
            "eventSource": "minio:s3",
            "s3": {"bucket": {"name": "b"}, "object": {"key": f"{n}.wav"}},
        }
        for n in range(40)
    ]
    message = SourceRecord(None, json.dumps({"Records": records}).encode(), ())
    at = Coordinates("cluster", "topic", 0, 7, 1_700_000_000_000)
    await Pipeline(rooms, limited, 2).handle(at, message, frozenset())
    assert len([kind for kind, _ in recorder.seen if kind == "row"]) == 40
    assert max(under_way) <= 3
