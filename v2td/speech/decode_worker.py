"""What runs in a decoder child: recordings are opened, decoded and searched for speech a piece at a time.

The child holds no model. It keeps several recordings open, so that a short one is not stuck behind a long one;
each call does one piece of one of them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from faster_whisper.vad import get_vad_model

from v2td.errors import ErrorClass, JobError
from v2td.jobs import SAMPLE_RATE, Span
from v2td.speech.demux import Pcm, PcmReader
from v2td.speech.vad import VadSettings, find_speech


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """One recording: `audio` is read, `pcm`, which exists, is written (16 kHz mono int16, no header)."""

    audio: Path
    pcm: Path
    max_seconds: float
    piece_seconds: float
    vad: VadSettings


@dataclass(frozen=True, slots=True)
class Piece:
    """Speech found in one piece, in samples of the recording; totals so far."""

    spans: tuple[Span, ...]
    samples: int
    bad_packets: int
    missing_seconds: float
    last: bool


class _OpenRecording:
    def __init__(self, request: DecodeRequest) -> None:
        self._request = request
        self._reader = PcmReader(request.audio, request.max_seconds)
        # Not truncated: after a crash the same samples are written again while others may read them.
        self._file: BinaryIO = request.pcm.open("r+b")
        self._tail = np.zeros(0, np.int16)
        self._settled = 0

    def next_piece(self) -> Piece:
        fresh = self._read()
        self._file.write(fresh.data)
        self._file.flush()
        last = self._reader.ended
        spans, settled = find_speech(pcm := np.concatenate([self._tail, fresh]), self._request.vad, last=last)
        moved = tuple(Span(span.start + self._settled, span.end + self._settled) for span in spans)
        self._tail = pcm[settled:]
        self._settled += settled
        damage = self._reader.damage
        return Piece(moved, self._reader.samples, damage.bad_packets, damage.missing_seconds, last)

    def _read(self) -> Pcm:
        try:
            return self._reader.read(int(self._request.piece_seconds * SAMPLE_RATE))
        except JobError:
            raise
        except Exception as error:  # FFmpeg knows more ways to fail than its documentation
            raise JobError(ErrorClass.DECODER_CRASH, f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        self._reader.__exit__()
        self._file.close()


_recordings: dict[int, _OpenRecording] = {}


def setup() -> None:
    """Load what every recording needs: the VAD (2 MB)."""
    get_vad_model()


def open_recording(token: int, request: DecodeRequest, abandoned: tuple[int, ...]) -> None:
    """Open a recording under `token`, after forgetting the `abandoned` ones.

    JobError when it is no audio that may be read.
    """
    for each in abandoned:
        close_recording(each)
    _recordings[token] = _OpenRecording(request)


def next_piece(token: int) -> Piece:
    """Decode the next piece; JobError too_long. After an error the recording is closed."""
    try:
        piece = _recordings[token].next_piece()
    except BaseException:
        close_recording(token)
        raise
    if piece.last:
        close_recording(token)
    return piece


def close_recording(token: int) -> None:
    """Forget a recording; nothing when it is not open."""
    with suppress(KeyError):
        _recordings.pop(token).close()
