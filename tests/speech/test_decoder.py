"""Recordings through real decoder children, which are killed on the way."""

import asyncio
import itertools
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.living import freeze
from tests.speech.sounds import audio, bundled, encode, read, sentences, silence
from v2td import failpoints, metrics
from v2td.bundled import recordings
from v2td.child import ChildDied
from v2td.config import SpeechSettings
from v2td.errors import ErrorClass, JobError, ServiceError
from v2td.jail import breaches, means
from v2td.jobs import SAMPLE_RATE, Audio, Span, Window
from v2td.speech import Decoders, Speech, decode_worker
from v2td.speech.decode_worker import Piece
from v2td.speech.decoder_slot import DecoderSlot

pytestmark = pytest.mark.slow  # starts processes that load models or services


@pytest.fixture
def pcm_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "pcm"
    folder.mkdir()
    return folder


def settings(pcm_dir: Path, **changes: object) -> SpeechSettings:
    return SpeechSettings.model_validate({"pcm_dir": pcm_dir, "piece_seconds": 60, **changes})


@pytest.fixture
async def decoders(pcm_dir: Path) -> AsyncIterator[Decoders]:
    """One child, so that all recordings meet in it."""
    async with Decoders(settings(pcm_dir), 1, [pcm_dir.parent]) as opened:
        yield opened
        assert not list(pcm_dir.glob("*/*.pcm")), "a PCM file was left behind"
    assert not list(pcm_dir.iterdir())


@pytest.fixture
def long_recording(tmp_path: Path) -> Audio:
    return audio(encode(sentences(200), tmp_path / "long.flac", "flac"))


async def windows_of(decoders: Decoders, recording: Audio) -> tuple[list[Window], Speech]:
    async with decoders.prepare(recording) as speech:
        windows = [window async for window in speech.windows]
        samples = np.fromfile(speech.pcm, np.int16)
        assert len(samples) == round(speech.audio_seconds * SAMPLE_RATE)
        assert windows == [] or windows[-1].pieces[-1].end <= len(samples)
    return windows, speech


def spans_of(windows: list[Window]) -> list[Span]:
    return [span for window in windows for span in window.speech]


async def refused(decoders: Decoders, path: Path) -> ErrorClass:
    async with decoders.prepare(audio(path)) as speech:
        with pytest.raises(JobError) as caught:
            [window async for window in speech.windows]
    return caught.value.error_class


def slot_of(decoders: Decoders) -> DecoderSlot:
    (slot,) = decoders._slots
    return slot


def stop_child(decoders: Decoders) -> int:
    """Freeze the child, so that the next call certainly is under way when the child is killed."""
    pid = slot_of(decoders).child.pid
    assert pid is not None
    freeze(pid)
    return pid


async def kill_under_a_call(decoders: Decoders, call: asyncio.Task[Any]) -> None:
    await until(lambda: slot_of(decoders).child.pid is not None)
    pid = stop_child(decoders)
    await asyncio.sleep(0.1)
    assert not call.done()
    os.kill(pid, signal.SIGKILL)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # another process makes it true, without an event
            await asyncio.sleep(0.01)


async def test_what_is_said_and_how_long_it_takes(decoders: Decoders) -> None:
    recording = bundled("en-04.ogg")
    (window,), speech = await windows_of(decoders, audio(recording.path))
    assert speech.audio_seconds == pytest.approx(recording.seconds, abs=0.05)
    assert speech.speech_seconds == pytest.approx(window.speech_length / SAMPLE_RATE)
    assert speech.speech_seconds == pytest.approx(sum(each.end - each.start for each in recording.segments), rel=0.2)
    assert not speech.truncated
    assert speech.decode_seconds > 0


async def test_the_samples_are_those_of_the_recording(decoders: Decoders) -> None:
    path = bundled("en-01.flac").path
    async with decoders.prepare(audio(path)) as speech:
        assert [window.index async for window in speech.windows] == [0]
        assert np.array_equal(np.fromfile(speech.pcm, np.int16), read(path))
        assert speech.pcm.stat().st_mode & 0o777 == 0o600
        assert speech.pcm.parent.stat().st_mode & 0o777 == 0o700


async def test_silence_has_no_windows_and_no_speech(decoders: Decoders, tmp_path: Path) -> None:
    for seconds in (0.01, 5.0):
        path = encode(silence(seconds), tmp_path / f"silence-{seconds}.wav")
        windows, speech = await windows_of(decoders, audio(path))
        assert windows == []
        assert speech.speech_seconds == 0
        assert speech.audio_seconds == pytest.approx(seconds)


async def test_silence_takes_no_memory(decoders: Decoders, tmp_path: Path) -> None:
    path = encode(silence(300), tmp_path / "silence.flac", "flac")
    async with decoders.prepare(audio(path)) as speech:
        assert [window async for window in speech.windows] == []
        assert speech.pcm.stat().st_size == pytest.approx(300 * SAMPLE_RATE * 2, abs=1000)
        assert speech.pcm.stat().st_blocks * 512 < 10 * SAMPLE_RATE * 2


async def test_what_cannot_be_heard_is_refused_and_the_child_goes_on(decoders: Decoders, tmp_path: Path) -> None:
    pid = slot_of(decoders).child.pid
    page = tmp_path / "page"
    page.write_text("<html>404</html>" * 100)
    assert await refused(decoders, page) is ErrorClass.NOT_AUDIO
    assert await refused(decoders, tmp_path / "page") is ErrorClass.NOT_AUDIO
    assert len((await windows_of(decoders, audio(bundled("vi-01.flac").path)))[0]) == 1
    assert slot_of(decoders).child.pid == pid


async def test_a_damaged_recording_is_accepted_and_said_to_be_truncated(decoders: Decoders, tmp_path: Path) -> None:
    cut = tmp_path / "cut.flac"
    whole = bundled("en-01.flac").path.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    windows, speech = await windows_of(decoders, audio(cut))
    assert speech.truncated
    assert len(windows) == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({"truncated": "fail"}, ErrorClass.TRUNCATED), ({"max_audio_seconds": 1}, ErrorClass.TOO_LONG)],
)
async def test_policies_refuse(pcm_dir: Path, tmp_path: Path, changes: dict[str, object], expected: ErrorClass) -> None:
    cut = tmp_path / "cut.flac"
    whole = bundled("en-01.flac").path.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    async with Decoders(settings(pcm_dir, **changes), 1, [pcm_dir.parent]) as decoders:
        assert await refused(decoders, cut) is expected
        assert not list(pcm_dir.glob("*/*.pcm"))


async def test_a_long_recording_is_released_piece_by_piece(decoders: Decoders, long_recording: Audio) -> None:
    async with decoders.prepare(long_recording) as speech:
        first = await anext(speech.windows)
        assert first.index == 0
        assert 59 < speech.audio_seconds < 70, "the first window came before the rest was decoded"
        rest = [window async for window in speech.windows]
        assert speech.audio_seconds > 199
    windows = [first, *rest]
    assert [window.index for window in windows] == list(range(len(windows)))
    assert all(window.length <= 30 * SAMPLE_RATE for window in windows)
    pieces = [piece for window in windows for piece in window.pieces]
    assert all(one.end <= other.start for one, other in itertools.pairwise(pieces))


async def test_several_recordings_share_a_child(decoders: Decoders, long_recording: Audio) -> None:
    alone, _speech = await windows_of(decoders, long_recording)
    short = {each.name: audio(each.path) for each in recordings() if each.seconds < 20}
    async with asyncio.TaskGroup() as group:
        long_task = group.create_task(windows_of(decoders, long_recording))
        tasks = {name: group.create_task(windows_of(decoders, each)) for name, each in short.items()}
        (message,), _ = await tasks["en-01.flac"]
        assert not long_task.done(), "a voice message waited for a long recording"
    assert long_task.result()[0] == alone
    assert message.speech
    for recording in (each for each in recordings() if each.name in tasks):
        assert tasks[recording.name].result()[1].audio_seconds == pytest.approx(recording.seconds, abs=0.05)


@pytest.mark.slow
async def test_after_a_crash_every_window_comes_once(decoders: Decoders, long_recording: Audio) -> None:
    expected, undisturbed = await windows_of(decoders, long_recording)
    restarts = metrics.DECODER_RESTARTS.labels("died")._value.get()
    async with decoders.prepare(long_recording) as speech:
        windows = [await anext(speech.windows), await anext(speech.windows)]
        while (window := await asyncio.wait_for(anext(speech.windows), 10)).index < 2:
            windows.append(window)
        windows.append(window)
        read_on = asyncio.create_task(_rest(speech))
        await kill_under_a_call(decoders, read_on)
        windows += await read_on
        assert windows == expected
        assert speech.audio_seconds == undisturbed.audio_seconds
        assert speech.speech_seconds == pytest.approx(undisturbed.speech_seconds)
    assert metrics.DECODER_RESTARTS.labels("died")._value.get() == restarts + 1


async def _rest(speech: Speech) -> list[Window]:
    return [window async for window in speech.windows]


@pytest.mark.slow
async def test_a_recording_that_kills_its_decoder_twice_fails_and_no_other(
    decoders: Decoders, long_recording: Audio
) -> None:
    expected, _ = await windows_of(decoders, long_recording)
    async with AsyncExitStack() as stack:
        victim = await stack.enter_async_context(decoders.prepare(long_recording))
        first = await anext(victim.windows)
        for _ in range(3):  # each of them dies of it once or twice, and the other has to start again
            killer = await stack.enter_async_context(decoders.prepare(long_recording))
            reading = asyncio.create_task(_rest(killer))
            for _crash in range(2):
                generation = slot_of(decoders).child.generation
                await kill_under_a_call(decoders, reading)
                await until(lambda before=generation: slot_of(decoders).child.generation > before)  # type: ignore[misc]
            with pytest.raises(JobError, match="died 2 times on this recording") as caught:
                await reading
            assert caught.value.error_class is ErrorClass.DECODER_CRASH
        assert [first, *await _rest(victim)] == expected


async def test_a_decoder_that_hangs_is_killed(pcm_dir: Path) -> None:
    async with Decoders(settings(pcm_dir, deadline_seconds=1), 1, [pcm_dir.parent]) as decoders:
        pid = stop_child(decoders)
        (window,), _speech = await windows_of(decoders, audio(bundled("en-01.flac").path))
        assert window.index == 0
        assert not psutil.pid_exists(pid)


async def test_a_cancelled_job_leaves_no_file_and_no_trouble(decoders: Decoders, long_recording: Audio) -> None:
    async def take_all() -> None:
        await windows_of(decoders, long_recording)

    for moment in (0.0, 0.01, 0.1, 0.3):
        task = asyncio.create_task(take_all())
        await asyncio.sleep(moment)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (window,), _speech = await windows_of(decoders, audio(bundled("en-01.flac").path))
    assert window.index == 0
    assert slot_of(decoders).child.generation == 1
    assert slot_of(decoders).open == 0


@pytest.mark.slow
async def test_a_job_cancelled_while_its_decoder_is_replaced_charges_no_other(decoders: Decoders) -> None:
    recording = audio(bundled("en-01.flac").path)

    async def take_all() -> None:
        await windows_of(decoders, recording)

    for moment in (0.0, 0.05, 0.3):
        restarts = sum(metrics.DECODER_RESTARTS.labels(reason)._value.get() for reason in ("died", "deadline"))
        task = asyncio.create_task(take_all())
        await asyncio.sleep(0)
        await kill_under_a_call(decoders, task)
        await until(lambda: slot_of(decoders).child.pid is None)
        await asyncio.sleep(moment)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await windows_of(decoders, recording)
        after = sum(metrics.DECODER_RESTARTS.labels(reason)._value.get() for reason in ("died", "deadline"))
        assert after == restarts + 1


async def test_the_child_lets_go_of_abandoned_recordings(decoders: Decoders, long_recording: Audio) -> None:
    """Unlinked files that are still open would fill the memory that they lie in."""
    recording = audio(bundled("en-01.flac").path)
    for _ in range(3):
        async with decoders.prepare(long_recording) as speech:
            await anext(speech.windows)
    await windows_of(decoders, recording)
    child = psutil.Process(slot_of(decoders).child.pid)
    folder = str(speech.pcm.parent)
    links = [os.readlink(f"/proc/{child.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{child.pid}/fd")]  # noqa: PTH115, PTH208
    assert [link for link in links if link.startswith(folder)] == []


async def test_a_recording_that_vanished_is_no_crash(decoders: Decoders, tmp_path: Path) -> None:
    gone = Audio(tmp_path / "gone.wav", 0, "0" * 64, temporary=False)
    async with decoders.prepare(gone) as speech:
        with pytest.raises(JobError):
            await anext(speech.windows)


def answering(decoders: Decoders, monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any], *args: Any) -> None:
    """Have the child answer the question for the next piece with what a function returns or raises there."""
    monkeypatch.setattr("v2td.speech.decode_worker.next_piece", lambda _token: None)
    call = slot_of(decoders).child.call

    async def instead(asked: Callable[..., Any], *asked_args: Any, deadline_seconds: float) -> Any:
        if asked is decode_worker.next_piece:
            return await call(function, *args, deadline_seconds=deadline_seconds)
        return await call(asked, *asked_args, deadline_seconds=deadline_seconds)

    monkeypatch.setattr(slot_of(decoders).child, "call", instead)


@pytest.mark.parametrize(
    "statement",
    [
        "raise OSError(5, 'Input/output error')",
        "raise OSError(2, 'No such file')",
        "raise TypeError('x' * 20_000_000)",
        "raise ExceptionGroup('x', [OSError(5, 'x')])",
        "from v2td.errors import *; raise JobError('no class', 'x')",
        "from v2td.errors import *; raise JobError(ErrorClass.POISON, 'not for a decoder to say')",
        "from v2td.errors import *; raise JobError(ErrorClass.NOT_AUDIO, 7)",
        "from v2td.errors import *; raise ServiceError('x', 'y')",
        "from v2td.failpoints import *; raise FailpointError",
        "pass",
    ],
)
async def test_what_a_decoder_does_not_say_is_a_crash_of_this_recording(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """One that was taken over says what it likes: nothing may end the daemon."""
    answering(decoders, monkeypatch, exec, statement)
    generation = slot_of(decoders).child.generation
    assert await refused(decoders, bundled("en-01.flac").path) is ErrorClass.DECODER_CRASH
    assert slot_of(decoders).child.generation == generation + 2
    monkeypatch.undo()
    assert len((await windows_of(decoders, audio(bundled("en-01.flac").path)))[0]) == 1


async def test_an_error_of_the_disk_is_one_that_we_see_ourselves(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(decoders, monkeypatch, exec, "raise OSError(5, 'Input/output error')")

    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("tempfile.TemporaryFile", broken)
    async with decoders.prepare(audio(bundled("en-01.flac").path)) as speech:
        with pytest.raises(ServiceError, match="Input/output error"):
            await anext(speech.windows)


async def test_a_reason_is_short_and_printable(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "'\\x1b[31m\\0' + 'x' * 20_000_000"
    answering(decoders, monkeypatch, exec, f"from v2td.errors import *; raise JobError(ErrorClass.NOT_AUDIO, {reason})")
    async with decoders.prepare(audio(bundled("en-01.flac").path)) as speech:
        with pytest.raises(JobError) as caught:
            await anext(speech.windows)
    assert caught.value.error_class is ErrorClass.NOT_AUDIO
    assert len(caught.value.reason) == 500
    assert caught.value.reason.isprintable()


async def test_no_process_remains(pcm_dir: Path) -> None:
    async with Decoders(settings(pcm_dir), 2, [pcm_dir.parent]) as decoders:
        pids = [slot.child.pid for slot in decoders._slots]
        assert all(pid is not None and psutil.pid_exists(pid) for pid in pids)
    assert not any(pid is not None and psutil.pid_exists(pid) for pid in pids)
    assert not list(pcm_dir.iterdir())


async def test_two_children_share_the_work(pcm_dir: Path, long_recording: Audio) -> None:
    async with Decoders(settings(pcm_dir), 2, [pcm_dir.parent]) as decoders, AsyncExitStack() as stack:
        for _ in range(4):
            speech = await stack.enter_async_context(decoders.prepare(long_recording))
            await anext(speech.windows)
        assert [slot.open for slot in decoders._slots] == [2, 2]


async def test_decoders_are_locked_in(decoders: Decoders, tmp_path: Path) -> None:
    outside = tmp_path.parent / "secret"
    outside.write_text("what nobody may know")
    await windows_of(decoders, audio(bundled("en-01.flac").path))
    assert await slot_of(decoders).child.call(breaches, outside, deadline_seconds=20) == ()


async def test_decoders_are_free_when_that_is_wanted(pcm_dir: Path) -> None:
    async with Decoders(settings(pcm_dir, jail="off"), 1, []) as decoders:
        assert await slot_of(decoders).child.call(breaches, pcm_dir / "new", deadline_seconds=20) != ()


@pytest.mark.parametrize("lacking", [{"seccomp": False}, {"landlock_abi": 0}])
async def test_no_start_where_the_jail_is_required_and_not_whole(
    pcm_dir: Path, monkeypatch: pytest.MonkeyPatch, lacking: dict[str, Any]
) -> None:
    found = replace(means(), **lacking)
    monkeypatch.setattr("v2td.speech.decoder.means", lambda: found)
    with pytest.raises(ServiceError, match="lock decoders in: missing"):
        async with Decoders(settings(pcm_dir, jail="required"), 1, []):
            pytest.fail("it did start")
    async with Decoders(settings(pcm_dir), 1, []) as decoders:
        assert len((await windows_of(decoders, audio(bundled("en-01.flac").path)))[0]) == 1


async def test_decoders_have_the_limits_of_the_settings(pcm_dir: Path) -> None:
    limits = {"decoder_memory_bytes": 300_000_000, "decoder_cpu_seconds": 7, "decoder_files": 100}
    async with Decoders(settings(pcm_dir, **limits), 1, []) as decoders:
        child = slot_of(decoders).child
        assert len((await windows_of(decoders, audio(bundled("en-04.ogg").path)))[0]) == 1
        used = child.usage()[1]
        soft, _hard = await child.call(resource.getrlimit, resource.RLIMIT_CPU, deadline_seconds=5)
        assert 7 <= soft <= 7 + 2 * used + 2
        assert await child.call(resource.getrlimit, resource.RLIMIT_NOFILE, deadline_seconds=5) == (100, 100)
        with pytest.raises(ChildDied, match="memory"):
            await child.call(bytearray, 300_000_000, deadline_seconds=10)


async def test_a_recording_outside_of_its_folders_is_not_read(pcm_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "secret.wav"
    path.write_bytes(bundled("en-01.flac").path.read_bytes())
    async with Decoders(settings(pcm_dir), 1, []) as decoders:
        assert await refused(decoders, path) is ErrorClass.ACCESS_DENIED
        assert len((await windows_of(decoders, audio(bundled("en-01.flac").path)))[0]) == 1


async def test_a_folder_that_is_replaced_is_found_again(pcm_dir: Path, tmp_path: Path) -> None:
    """As when a disk is mounted again: the decoders were locked in with the old one."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    async with Decoders(settings(pcm_dir), 1, [folder]) as decoders:
        folder.rename(tmp_path / "old")
        folder.mkdir()
        path = folder / "sound.flac"
        path.write_bytes(bundled("en-01.flac").path.read_bytes())
        assert len((await windows_of(decoders, audio(path)))[0]) == 1
        generation = slot_of(decoders).child.generation
        assert len((await windows_of(decoders, audio(path)))[0]) == 1
        assert slot_of(decoders).child.generation == generation


PIECE = Piece(((Span(1, 2),), ()), settled=3, samples=4, bad_packets=0, missing_seconds=0.5, last=True)


@pytest.mark.parametrize(
    "change",
    [
        {"samples": -1},
        {"samples": "4"},
        {"samples": 1},
        {"settled": 5},
        {"settled": True},
        {"bad_packets": 0.5},
        {"missing_seconds": float("nan")},
        {"missing_seconds": "0"},
        {"spans": ((Span(2, 1),), ())},
        {"spans": ((Span(-1, 1),), ())},
        {"spans": ((Span(1, 5),), ())},
        {"spans": ((1, 2), ())},
        {"spans": 5},
        {"spans": (5, 6)},
        {"spans": ([Span(1, 2)], ())},
        {"spans": ((),)},
        {"spans": ((Span(2, 3), Span(1, 2)), ())},
        {"samples": 1 << 60},
        {"last": None},
        {"spans": ((Span(1.5, 2),), ())},  # type: ignore[arg-type]  # that is the point
    ],
)
def test_what_no_decoder_says_is_seen(change: dict[str, Any]) -> None:
    assert PIECE.plausible(2, None)
    assert not replace(PIECE, **change).plausible(2, None)


def test_a_decoder_goes_forward_until_it_ends() -> None:
    before = replace(PIECE, last=False)
    after = replace(PIECE, spans=((), ()), last=False)
    assert not after.plausible(2, before)
    assert replace(after, last=True).plausible(2, before)
    assert replace(after, samples=5).plausible(2, before)
    assert not replace(PIECE, samples=5).plausible(2, before)  # speech where there was none
    assert not replace(after, samples=3, last=True).plausible(2, before)


async def test_what_is_missing_is_told(decoders: Decoders, tmp_path: Path) -> None:
    whole = encode(sentences(20), tmp_path / "whole.wav")
    cut = tmp_path / "cut.wav"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    _windows, speech = await windows_of(decoders, audio(cut))
    assert speech.truncated
    assert speech.damage == {"bad_packets": 0, "missing_seconds": pytest.approx(speech.audio_seconds, abs=0.1)}
    _windows, speech = await windows_of(decoders, audio(whole))
    assert not speech.truncated
    assert speech.damage == {}


async def test_failpoints_work_in_a_jail(pcm_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that crashes by itself, twice on the same recording; what went off is noted from inside."""
    noted = tmp_path / "noted"
    monkeypatch.setenv(failpoints.ARMED_VARIABLE, "1")
    monkeypatch.setenv(failpoints.VARIABLE, "decoder.piece=segv@1")
    monkeypatch.setenv(failpoints.LOG_VARIABLE, str(noted))
    async with Decoders(settings(pcm_dir), 1, []) as decoders:
        assert await refused(decoders, bundled("en-01.flac").path) is ErrorClass.DECODER_CRASH
    assert [line.split()[:2] for line in noted.read_text().splitlines()] == [["decoder.piece", "segv"]] * 2


async def test_an_urgent_recording_is_decoded_before_those_that_wait(decoders: Decoders) -> None:
    decoded: list[int] = []

    async def decode(priority: int) -> None:
        async with decoders.prepare(audio(bundled("en-01.flac").path), priority=priority) as speech:
            decoded.extend([priority async for _ in speech.windows])

    async with asyncio.TaskGroup() as group:
        for priority in (5, 5, 5, 5, 0, 9, 5):
            group.create_task(decode(priority))
    assert decoded == [0, 5, 5, 5, 5, 5, 9]
