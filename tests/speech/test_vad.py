from itertools import pairwise

import numpy as np
import pytest

from tests.speech.sounds import Pcm, bundled, read, sentences, silence
from v2td.bundled import Recording, recordings
from v2td.jobs import SAMPLE_RATE, Span
from v2td.speech.vad import VadSettings, find_speech

SETTINGS = VadSettings(threshold=0.5, min_speech_seconds=0.1, min_silence_seconds=0.5, max_speech_seconds=29.4)


def in_pieces(pcm: Pcm, piece: int) -> list[Span]:
    """What a decoder child does: the unsettled rest goes in front of the next piece."""
    spans: list[Span] = []
    settled = 0
    for end in range(piece, len(pcm) + piece, piece):
        found, more = find_speech(pcm[settled:end], SETTINGS, last=end >= len(pcm))
        assert all(0 <= span.start < span.end <= more for span in found)
        spans += (Span(settled + span.start, settled + span.end) for span in found)
        settled += more
    assert settled == len(pcm)
    return spans


@pytest.mark.parametrize("recording", [each for each in recordings() if each.seconds < 20], ids=lambda each: each.name)
def test_speech_is_found_where_it_was_spoken(recording: Recording) -> None:
    spans, _settled = find_speech(read(recording.path), SETTINGS, last=True)
    spoken = recording.segments
    assert spans[0].start / SAMPLE_RATE == pytest.approx(spoken[0].start, abs=0.25)
    assert spans[-1].end / SAMPLE_RATE == pytest.approx(spoken[-1].end, abs=0.35)
    for segment in spoken:
        heard = sum(
            max(0.0, min(segment.end, span.end / SAMPLE_RATE) - max(segment.start, span.start / SAMPLE_RATE))
            for span in spans
        )
        assert heard > 0.75 * (segment.end - segment.start)


@pytest.mark.parametrize("kind", ["nothing", "silence", "noise", "hum"])
def test_there_is_no_speech_where_nobody_speaks(kind: str) -> None:
    time = np.arange(20 * SAMPLE_RATE) / SAMPLE_RATE
    sound = {
        "nothing": np.zeros(0),
        "silence": np.zeros(len(time)),
        "noise": np.random.default_rng(0).normal(0, 300, len(time)),
        "hum": 2000 * np.sin(2 * np.pi * 50 * time),
    }[kind]
    assert find_speech(sound.astype(np.int16), SETTINGS, last=True) == ([], len(sound))


def test_spans_of_endless_speech_fit_a_window_and_miss_nothing() -> None:
    """An hour-long speech without a pause must not make a window of an hour."""
    sentence = read(bundled("en-04.ogg").path)
    (first, *_), _ = find_speech(sentence, SETTINGS, last=True)
    endless = np.concatenate([sentence[first.start : first.end - SAMPLE_RATE // 5]] * 40)
    assert len(endless) > 70 * SAMPLE_RATE
    for spans in (in_pieces(endless, len(endless)), in_pieces(endless, 60 * SAMPLE_RATE)):
        assert all(span.length <= SETTINGS.max_speech_seconds * SAMPLE_RATE for span in spans)
        assert all(before.end <= after.start for before, after in pairwise(spans))
        assert sum(span.length for span in spans) > 0.97 * len(endless)


def test_speech_up_to_the_last_sample_is_heard_up_to_there() -> None:
    pcm = read(bundled("en-01.flac").path)[: 2 * SAMPLE_RATE]  # cut in the middle of a sentence
    (span,), settled = find_speech(pcm, SETTINGS, last=True)
    assert settled == len(pcm)
    assert span.end > len(pcm) - SAMPLE_RATE // 10


def test_silence_at_the_end_is_not_heard() -> None:
    pcm = np.concatenate([read(bundled("en-01.flac").path), silence(0.3)])
    (span,), _ = find_speech(pcm, SETTINGS, last=True)
    assert span.end / SAMPLE_RATE == pytest.approx(bundled("en-01.flac").segments[0].end, abs=0.2)


@pytest.mark.parametrize("seconds", [60, 61.7, 90])
def test_a_recording_in_pieces_has_the_same_speech_as_in_one(seconds: float) -> None:
    """The VAD is a recurrent network, and a piece starts it anew: a quiet last syllable may be heard or not."""
    pcm = sentences(200)
    whole = in_pieces(pcm, len(pcm))
    pieces = in_pieces(pcm, int(seconds * SAMPLE_RATE))
    assert len(pieces) == len(whole) > 30
    moved = [
        abs(border - other_border) / SAMPLE_RATE
        for one, other in zip(whole, pieces, strict=True)
        for border, other_border in ((one.start, other.start), (one.end, other.end))
    ]
    assert max(moved) <= 0.25
    assert sum(each <= 0.05 for each in moved) > 0.9 * len(moved)
