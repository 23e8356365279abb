"""Finds speech with the Silero VAD that faster-whisper bundles, piece by piece; runs in the decoder child.

A whole recording at once would take 4 bytes a sample and two copies more (2 GB for 3 h). A piece is cut in
silence: what may go on in the next piece is held back and looked at again with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from faster_whisper.vad import VadOptions, get_speech_timestamps
from numpy.typing import NDArray

from v2td.jobs import SAMPLE_RATE, Span

TAIL_SECONDS = 0.5  # silence at the end of a piece that is looked at again: a word may begin in it


@dataclass(frozen=True, slots=True)
class VadSettings:
    """What the child needs to know; seconds, and the longest span that a window takes."""

    threshold: float
    min_speech_seconds: float
    min_silence_seconds: float
    max_speech_seconds: float


def find_speech(pcm: NDArray[np.int16], settings: VadSettings, *, last: bool) -> tuple[list[Span], int]:
    """Return the spans of speech in `pcm`, one channel, and how many samples are settled.

    What lies behind the settled samples comes again, in front of the next piece; everything is settled in the
    `last` piece.
    """
    options = VadOptions(
        threshold=settings.threshold,
        min_speech_duration_ms=int(settings.min_speech_seconds * 1000),
        max_speech_duration_s=settings.max_speech_seconds,
        min_silence_duration_ms=int(settings.min_silence_seconds * 1000),
        speech_pad_ms=0,  # the packer pads, knowing the neighbours
    )
    heard = pcm.astype(np.float32) / 32768.0
    if last:  # silence ends the last span where its speech ends, not where the recording does
        heard = np.pad(heard, (0, int((settings.min_silence_seconds + 0.1) * SAMPLE_RATE)))
    found = get_speech_timestamps(heard, options)
    spans = [Span(each["start"], min(each["end"], len(pcm))) for each in found]
    if last:
        return spans, len(pcm)
    settled = len(pcm) - int(TAIL_SECONDS * SAMPLE_RATE)
    if spans and spans[-1].end > settled:
        settled = spans.pop().start
    return spans, settled
