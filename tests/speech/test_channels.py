"""Recordings whose channels are decoded each on its own, such as two-party calls, through a real decoder child."""

import itertools
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.speech.sounds import Pcm, audio, bundled, encode_as, encode_channels, read, sentences, silence
from v2td.config import SpeechSettings
from v2td.errors import ErrorClass, JobError
from v2td.jobs import SAMPLE_RATE, Audio, Window
from v2td.speech import Decoders, Speech

pytestmark = pytest.mark.slow  # starts processes that load models or services

AGENT, CALLER = (read(bundled(name).path) for name in ("en-04.ogg", "vi-01.flac"))


@pytest.fixture
def pcm_dir() -> Iterator[Path]:
    """A real tmpfs."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="v2td-test-") as folder:
        yield Path(folder)


@pytest.fixture
async def decoders(pcm_dir: Path, tmp_path: Path) -> AsyncIterator[Decoders]:
    async with Decoders(SpeechSettings(pcm_dir=pcm_dir, piece_seconds=60), 1, [tmp_path]) as opened:
        yield opened
        assert not list(pcm_dir.glob("*/*.pcm")), "a PCM file was left behind"


@pytest.fixture
def call(tmp_path: Path) -> Audio:
    """Two parties; the second begins while the first still speaks."""
    return audio(encode_channels([AGENT, np.concatenate([silence(4), CALLER])], tmp_path / "call.wav"))


@pytest.fixture
def long_call(tmp_path: Path) -> Audio:
    both = [sentences(200), np.concatenate([silence(25), sentences(150)])]
    return audio(encode_channels(both, tmp_path / "long.wav"))


async def heard(decoders: Decoders, recording: Audio) -> tuple[list[Window], Speech, Pcm]:
    async with decoders.prepare(recording, "split") as speech:
        windows = [window async for window in speech.windows]
        frames = np.fromfile(speech.pcm, np.int16).reshape(-1, speech.channels)
    return windows, speech, frames


async def test_each_channel_has_its_own_samples_speech_and_windows(decoders: Decoders, call: Audio) -> None:
    windows, speech, frames = await heard(decoders, call)
    assert speech.channels == 2
    assert np.array_equal(frames[: len(AGENT), 0], AGENT)
    assert np.array_equal(frames[4 * SAMPLE_RATE :, 1][: len(CALLER)], CALLER)
    assert [(window.index, window.channel) for window in windows] == [(0, 0), (1, 1)]
    agent, caller = windows
    assert agent.speech[-1].end > caller.speech[0].start, "they overlap"
    assert caller.speech[0].start > 4 * SAMPLE_RATE
    assert speech.audio_seconds == pytest.approx(len(frames) / SAMPLE_RATE)
    assert speech.speech_seconds == pytest.approx((agent.speech_length + caller.speech_length) / SAMPLE_RATE)


async def test_the_same_recording_mixed_is_one_channel(decoders: Decoders, call: Audio) -> None:
    async with decoders.prepare(call) as speech:
        windows = [window async for window in speech.windows]
        frames = np.fromfile(speech.pcm, np.int16)
    assert speech.channels == 1
    assert {window.channel for window in windows} == {None}
    assert len(frames) == max(len(AGENT), 4 * SAMPLE_RATE + len(CALLER))


async def test_a_mono_recording_has_channel_0_only(decoders: Decoders) -> None:
    windows, speech, frames = await heard(decoders, audio(bundled("en-04.ogg").path))
    async with decoders.prepare(audio(bundled("en-04.ogg").path)) as mixed:
        (window,) = [window async for window in mixed.windows]
    assert speech.channels == 1
    assert np.array_equal(frames[:, 0], AGENT)
    assert [(each.channel, each.pieces, each.speech) for each in windows] == [(0, window.pieces, window.speech)]
    assert speech.speech_seconds == pytest.approx(mixed.speech_seconds)


async def test_a_silent_channel_has_no_windows_and_none_is_needed(decoders: Decoders, tmp_path: Path) -> None:
    for channels, expected in (([silence(3), AGENT], [1]), ([silence(3), silence(1)], [])):
        windows, speech, _ = await heard(decoders, audio(encode_channels(channels, tmp_path / "call.wav")))
        assert [window.channel for window in windows] == expected
        assert speech.channels == 2


async def test_eight_channels_and_no_more(decoders: Decoders, tmp_path: Path) -> None:
    eight = [np.concatenate([silence(number), AGENT]) for number in range(8)]
    windows, speech, _ = await heard(decoders, audio(encode_channels(eight, tmp_path / "eight.wav")))
    assert speech.channels == 8
    assert [(window.index, window.channel) for window in windows] == [(number, number) for number in range(8)]
    starts = [window.speech[0].start / SAMPLE_RATE for window in windows]
    assert np.diff(starts) == pytest.approx([1.0] * 7, abs=0.1)
    with pytest.raises(JobError) as caught:
        await heard(decoders, audio(encode_channels([AGENT] * 9, tmp_path / "nine.wav")))
    assert caught.value.error_class is ErrorClass.BAD_PARAMS


@pytest.mark.parametrize(("first", "second", "loud"), [("stereo", "mono", [True, False]), ("mono", "stereo", [True])])
async def test_the_number_of_channels_may_change_on_the_way(
    decoders: Decoders, tmp_path: Path, first: str, second: str, loud: list[bool]
) -> None:
    """It is that of the beginning: what is missing later is silent, what is too much is mixed in."""
    glued = tmp_path / "glued.mp3"
    parts = [encode_as(AGENT, tmp_path / f"{each}.mp3", "libmp3lame", 44_100, each) for each in (first, second)]
    glued.write_bytes(b"".join(part.read_bytes() for part in parts))
    windows, speech, frames = await heard(decoders, audio(glued))
    assert speech.channels == len(loud)
    assert speech.audio_seconds == pytest.approx(2 * len(AGENT) / SAMPLE_RATE, abs=0.4)
    later = frames[len(AGENT) + SAMPLE_RATE :]
    assert [bool(np.abs(later[:, channel]).max() > 1000) for channel in range(speech.channels)] == loud
    assert windows


async def test_what_cannot_be_heard_is_refused(decoders: Decoders, tmp_path: Path) -> None:
    page = tmp_path / "page"
    page.write_text("<html>404</html>" * 100)
    with pytest.raises(JobError) as caught:
        await heard(decoders, audio(page))
    assert caught.value.error_class is ErrorClass.NOT_AUDIO


async def test_after_a_crash_every_window_of_every_channel_comes_once(decoders: Decoders, long_call: Audio) -> None:
    expected, undisturbed, samples = await heard(decoders, long_call)
    assert [window.index for window in expected] == list(range(len(expected)))
    for channel in (0, 1):
        pieces = [piece for window in expected if window.channel == channel for piece in window.pieces]
        assert all(before.end <= after.start for before, after in itertools.pairwise(pieces))
    (slot,) = decoders._slots
    async with decoders.prepare(long_call, "split") as speech:
        windows = [await anext(speech.windows) for _ in range(3)]
        pid = slot.child.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        for window in windows:  # given back, and written again by the next decoder
            speech.release(window)
        async for window in speech.windows:
            windows.append(window)
            assert np.array_equal(pieces_of(speech, window), cut(samples, window))
            speech.release(window)
    assert windows == expected
    assert slot.child.generation == 2
    assert speech.speech_seconds == pytest.approx(undisturbed.speech_seconds)


def pieces_of(speech: Speech, window: Window) -> Pcm:
    return cut(np.fromfile(speech.pcm, np.int16).reshape(-1, speech.channels), window)


def cut(frames: Pcm, window: Window) -> Pcm:
    return np.concatenate([frames[piece.start : piece.end, window.channel or 0] for piece in window.pieces])


@pytest.mark.parametrize("split", [True, False])
async def test_pcm_that_was_heard_is_given_back(decoders: Decoders, long_call: Audio, split: bool) -> None:
    async with decoders.prepare(long_call, "split" if split else "mix") as speech:
        waiting: list[tuple[Window, Pcm]] = []
        sizes = []
        async for window in speech.windows:
            waiting.append((window, pieces_of(speech, window)))
            if len(waiting) == 4:  # heard out of order: the engine has several slots
                for index in (1, 0, 1):
                    done, samples = waiting.pop(index)
                    assert np.array_equal(pieces_of(speech, done), samples), "given back too early"
                    speech.release(done)
                    sizes.append(speech.pcm.stat().st_blocks * 512)
        for window, samples in waiting:
            assert np.array_equal(pieces_of(speech, window), samples), "given back too early"
            speech.release(window)
        whole = speech.pcm.stat()
        assert whole.st_size == round(speech.audio_seconds * SAMPLE_RATE) * 2 * speech.channels
        assert min(sizes) < whole.st_size * 0.6
        assert whole.st_blocks * 512 < whole.st_size / 20
    speech.release(waiting[-1][0])  # a slot that served a job which has left
