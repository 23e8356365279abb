"""The engine with the bundled model, on recordings whose text is known."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from pathlib import Path

import jiwer
import pytest

from tests.engine.conftest import EN, VI, Hear, freeze, running_engine, slots_of, text_of, until
from tests.speech.sounds import audio, silence
from v2td import metrics
from v2td.bundled import Recording, recordings
from v2td.config import EngineSettings, QualitySettings, SpeechSettings
from v2td.engine import Engine, Hearing, Plan
from v2td.engine.topology import SlotPlan
from v2td.errors import ErrorClass, JobError, ServiceError
from v2td.jobs import Options, Segment, Window
from v2td.speech import Decoders, covered_seconds, to_recording

pytestmark = pytest.mark.slow  # starts processes that load models or services


async def through(decoders: Decoders, engine: Engine, recording: Recording, options: Options) -> list[Segment]:
    """The journey without its ends: what a Transcript is made of."""
    async with decoders.prepare(audio(recording.path)) as speech:
        heard = await engine.transcribe(
            Hearing(speech.pcm, speech.windows, options, 5, time.monotonic(), on_progress=lambda: None)
        )
    assert heard.language == (options.language or recording.language)
    assert (heard.language_probability is None) == (options.language is not None)
    assert [timing.index for timing in heard.timings] == list(range(len(heard.windows)))
    segments = [to_recording(each, window) for window, result in heard.windows for each in result.segments]
    spans = tuple(span for window, _ in heard.windows for span in window.speech)
    assert covered_seconds(tuple(segments), spans) > 0.95 * speech.speech_seconds
    return segments


@pytest.mark.slow
@pytest.mark.parametrize("given", [True, False], ids=["language given", "language detected"])
async def test_every_bundled_recording_gets_its_text_language_and_times(tmp_path: Path, given: bool) -> None:
    async with (
        Decoders(SpeechSettings(pcm_dir=tmp_path), 1, [tmp_path]) as decoders,
        running_engine(2) as engine,
        asyncio.TaskGroup() as group,
    ):
        tasks = {
            recording: group.create_task(
                through(decoders, engine, recording, Options(language=recording.language if given else None))
            )
            for recording in recordings()
        }
    for recording, task in tasks.items():
        segments = task.result()
        text = " ".join(segment.text.strip() for segment in segments)
        wrong = jiwer.wer(recording.text.lower(), text.lower())
        assert wrong <= (0.05 if recording.seconds > 60 else 0), (recording.name, text)
        if wrong == 0 and len(segments) == len(recording.segments):
            for heard, spoken in zip(segments, recording.segments, strict=True):
                assert heard.start == pytest.approx(spoken.start, abs=0.5), recording.name
                assert heard.end == pytest.approx(spoken.end, abs=0.5), recording.name
    exact = [each for each, task in tasks.items() if len(task.result()) == len(each.segments)]
    assert len(exact) >= 12, "times could be compared for most of them"


async def test_words_lie_in_their_segments_and_make_up_their_text(engine: Engine, hear: Hear) -> None:
    heard = await hear(engine, EN, options=Options(language="en", word_timestamps=True))
    ((_, result),) = heard.windows
    for segment in result.segments:
        assert segment.words
        assert "".join(word.text for word in segment.words).strip() == segment.text.strip()
        assert segment.start <= segment.words[0].start
        assert segment.words[-1].end <= segment.end
        assert all(word.start <= word.end and 0 < word.probability <= 1 for word in segment.words)


async def test_the_language_is_the_likeliest_of_those_allowed(engine: Engine, hear: Hear) -> None:
    for recording, options, language in (
        (EN, Options(), "en"),
        (VI, Options(), "vi"),
        (EN, Options(languages=("en", "vi")), "en"),
        (EN, Options(languages=("vi",)), "vi"),
        (VI, Options(languages=("en", "fr")), "en"),
        (VI, Options(language="en", languages=("vi",)), "en"),
    ):
        heard = await hear(engine, recording, options=options)
        assert heard.language == heard.windows[0][1].language == language, options
        if options.language is None:
            assert heard.language_probability is not None
            assert 0 <= heard.language_probability <= 1


async def test_the_first_window_tells_the_others_the_language_and_the_default_needs_none(
    hear: Hear, engine: Engine
) -> None:
    heard = await hear(engine, VI, windows=3, options=Options())
    assert [result.language for _, result in heard.windows] == ["vi"] * 3
    assert text_of(heard) == [VI.text] * 3
    async with running_engine(default_language="vi") as vietnamese:
        assert (await hear(vietnamese, EN, options=Options())).language == "vi"
        assert (await hear(vietnamese, EN, options=Options(languages=("en",)))).language == "en"


async def test_what_a_message_may_ask_for_is_accepted(engine: Engine, hear: Hear) -> None:
    for options in (
        Options(language="en", prompt="Please call me."),
        Options(language="en", hotwords="Hanoi, Chicago"),
        Options(language="en", prompt="Please call me. " * 300),
        Options(language="en", hotwords="Hanoi, Chicago. " * 300),
        Options(language="en", prompt="Please call me. " * 300, hotwords="Hanoi, Chicago. " * 20),
        Options(language="en", prompt="Please call me. " * 300, hotwords="Hanoi, Chicago. " * 300),
        Options(language="en", beam_size=1),
        Options(language="en", task="translate"),
    ):
        assert text_of(await hear(engine, EN, options=options)) == [EN.text], options


async def test_silence_and_nothing_have_no_text(engine: Engine, hear: Hear) -> None:
    assert text_of(await hear(engine, silence(3.0))) == [""]
    nothing = await hear(engine, EN, windows=0, options=Options())
    assert (nothing.language, nothing.language_probability, nothing.windows) == (None, None, ())


async def test_an_urgent_job_overtakes_and_a_long_one_does_not_block(hear: Hear) -> None:
    served: list[str] = []

    async with running_engine(batch_windows=1) as engine, asyncio.TaskGroup() as group:
        (slot,) = slots_of(engine)
        for name, windows, priority in (("long", 6, 5), ("short", 1, 5), ("urgent", 2, 0)):
            group.create_task(
                _discard(hear(engine, EN, windows=windows, priority=priority, on_progress=partial(served.append, name)))
            )
            await until(lambda: slot.state == "busy")
    starts = served[::2]  # one slot: starts and ends take turns
    assert starts[0] == "long"
    assert starts[1:3] == ["urgent", "urgent"]
    assert starts[3] == "short"
    assert starts[4:] == ["long"] * 5


async def test_a_cancelled_job_frees_its_windows(engine: Engine, hear: Hear) -> None:
    backlog = metrics.BACKLOG_AUDIO_SECONDS._value.get()
    (slot,) = slots_of(engine)
    job = asyncio.create_task(_discard(hear(engine, EN, windows=50)))
    await until(lambda: slot.state == "busy")
    assert engine.status()["queued_windows"] > 40
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert engine.status()["queued_windows"] == 0
    assert metrics.BACKLOG_AUDIO_SECONDS._value.get() == pytest.approx(backlog)
    assert metrics.QUEUE_WINDOWS._value.get() == 0
    assert text_of(await hear(engine, EN)) == [EN.text]
    assert slot.child.generation == 1


async def _discard(awaitable: Awaitable[object]) -> None:
    await awaitable


async def test_an_error_of_the_decoder_passes_through_and_frees_the_windows(
    engine: Engine, hear: Hear, tmp_path: Path
) -> None:
    recognition = await hear(engine, EN)
    window = recognition.windows[0][0]

    async def broken() -> AsyncIterator[Window]:
        for _ in range(5):
            yield window
        raise JobError(ErrorClass.TRUNCATED, "it ends here")

    (pcm,) = tmp_path.glob("*.pcm")
    hearing = Hearing(pcm, broken(), Options(language="en"), 5, time.monotonic(), lambda: None)
    with pytest.raises(JobError, match="it ends here"):
        await engine.transcribe(hearing)
    assert engine.status()["queued_windows"] == 0


async def test_what_the_model_raises_fails_that_job_alone(engine: Engine, hear: Hear, tmp_path: Path) -> None:
    window = (await hear(engine, EN)).windows[0][0]

    async def found() -> AsyncIterator[Window]:
        yield window

    hearing = Hearing(tmp_path / "gone.pcm", found(), Options(), 5, time.monotonic(), lambda: None)
    with pytest.raises(JobError, match="its PCM is gone") as caught:
        await engine.transcribe(hearing)
    assert caught.value.error_class is ErrorClass.INFERENCE_CRASH
    assert text_of(await hear(engine, EN)) == [EN.text]
    assert slots_of(engine)[0].child.generation == 1


async def test_a_model_that_does_not_load_is_our_fault(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"not a model")
    engine = Engine(EngineSettings(model=str(tmp_path)), QualitySettings(), Plan((SlotPlan((), 1),), ()), tmp_path)
    with pytest.raises(ExceptionGroup) as caught:
        async with engine:
            pytest.fail("it did load")
    assert caught.group_contains(ServiceError, match="start slot 0: RuntimeError")


async def test_what_a_slot_takes_is_seen_while_it_is_busy(
    engine: Engine, hear: Hear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("v2td.engine.slot.WATCH_SECONDS", 0.0)
    job = asyncio.create_task(_discard(hear(engine, EN, windows=8)))
    await until(lambda: slots_of(engine)[0].state == "busy")
    (before,) = engine.status()["slots"]
    (during,) = engine.status()["slots"]
    while during["state"] == "busy" and during["cpu_seconds"] <= before["cpu_seconds"]:
        await asyncio.sleep(0.01)
        (during,) = engine.status()["slots"]
    assert during["state"] == "busy"
    assert during["cpu_seconds"] > before["cpu_seconds"]
    assert during["batch"]
    await job


async def test_progress_is_told_and_the_state_is_seen(
    engine: Engine, hear: Hear, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress: list[str] = []
    await hear(engine, EN, windows=2, on_progress=lambda: progress.append(slots_of(engine)[0].state))
    assert progress == ["busy"] * 4
    await until(lambda: slots_of(engine)[0].state == "idle")
    assert not engine.stalled(5)
    pid = slots_of(engine)[0].child.pid
    monkeypatch.setattr("v2td.engine.slot.WATCH_SECONDS", 0.0)
    engine.status()  # a share is one between two looks
    status = engine.status()
    assert 0 < status.pop("window_seconds_expected") < 30
    (slot,) = status.pop("slots")
    assert status == {"queued_windows": 0}
    assert slot.pop("rss_bytes") > 50_000_000
    assert slot.pop("cpu_seconds") > 0
    assert slot.pop("cpu_share") >= 0
    assert slot == {"slot": 0, "state": "idle", "pid": pid, "restarts": 0, "windows": 2, "batch": []}
    assert metrics.SLOTS.labels("idle")._value.get() == 1
    await until(lambda: metrics.SLOT_RSS.labels(0)._value.get() > 50_000_000)


async def test_a_slot_that_waits_for_a_frozen_process_is_no_stalled_one(engine: Engine, hear: Hear) -> None:
    """It has its deadline; the watchdog must not kill the daemon for it."""
    freeze(slots_of(engine)[0])
    job = asyncio.create_task(_discard(hear(engine, EN)))
    await until(lambda: slots_of(engine)[0].state == "busy")
    await asyncio.sleep(0.3)
    assert not engine.stalled(0.1)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
