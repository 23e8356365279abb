"""What runs in a decoder child: recordings are opened, decoded and searched for speech a piece at a time.

The child holds no model. It keeps several recordings open, so that a short one is not stuck behind a long one;
each call does one piece of one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from faster_whisper.vad import get_vad_model
from numpy.typing import NDArray

from v2td import failpoints
from v2td.child import lacks_memory
from v2td.errors import ErrorClass, JobError
from v2td.jail import limit_cpu, limit_process
from v2td.jobs import SAMPLE_RATE, Span
from v2td.speech.demux import Accepted, Pcm, PcmReader
from v2td.speech.vad import VadSettings, find_speech

TOO_MANY = 1 << 48  # samples, packets or seconds


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """One recording: `audio` is read, `pcm`, which exists, is written (16 kHz int16, channels interleaved, no header).

    Its channels are mixed into one, unless `split`.
    """

    audio: Path
    pcm: Path
    split: bool
    accepted: Accepted
    piece_seconds: float
    cpu_seconds: float  # to open it, and for each piece
    vad: VadSettings


@dataclass(frozen=True, slots=True)
class Piece:
    """Speech found in one piece, for each channel, in samples of the recording; totals so far.

    No speech that is still to come begins before `settled`.
    """

    spans: tuple[tuple[Span, ...], ...]
    settled: int
    samples: int
    bad_packets: int
    missing_seconds: float
    last: bool

    def plausible(self, channels: int, before: Piece | None) -> bool:
        """Whether it can be true, after the piece `before`; a decoder that a recording took over may say what it likes.

        `channels`: how many are searched.
        """
        numbers = (self.settled, self.samples, self.bad_packets)
        if not all(type(each) is int and 0 <= each < TOO_MANY for each in numbers) or self.settled > self.samples:
            return False
        if type(self.missing_seconds) not in (int, float) or not 0 <= self.missing_seconds < TOO_MANY:
            return False
        if (type(self.last), type(self.spans)) != (bool, tuple) or len(self.spans) != channels:
            return False
        settled, samples = (0, 0) if before is None else (before.settled, before.samples)
        if self.settled < settled or self.samples < samples or (self.samples == samples and not self.last):
            return False
        return all(_in_order(spans, settled, self.samples) for spans in self.spans)


def _in_order(spans: object, start: int, end: int) -> bool:
    """Whether these are spans one behind the other from `start` to `end`."""
    if type(spans) is not tuple:
        return False
    for span in spans:
        if type(span) is not Span or type(span.start) is not int or type(span.end) is not int:
            return False
        if not start <= span.start <= span.end <= end:
            return False
        start = span.end
    return True


class _Channel:
    """The search for speech in one channel."""

    def __init__(self, vad: VadSettings) -> None:
        self._vad = vad
        self._tail = np.zeros(0, np.int16)  # looked at again with the next piece
        self.settled = 0

    def find_speech(self, fresh: NDArray[np.int16], *, last: bool) -> tuple[Span, ...]:
        pcm = np.concatenate([self._tail, fresh])
        spans, settled = find_speech(pcm, self._vad, last=last)
        moved = tuple(Span(span.start + self.settled, span.end + self.settled) for span in spans)
        self._tail = pcm[settled:]
        self.settled += settled
        return moved


class _OpenRecording:
    def __init__(self, request: DecodeRequest) -> None:
        self.request = request
        self._reader = PcmReader(request.audio, request.accepted, split=request.split)
        self._channels = [_Channel(request.vad) for _ in range(self._reader.channels)]
        # Not truncated: after a crash the same samples are written again while others may read them.
        self._file: BinaryIO = request.pcm.open("r+b")

    @property
    def channels(self) -> int:
        return self._reader.channels

    def next_piece(self) -> Piece:
        fresh = self._read()
        self._file.write(fresh.data)
        self._file.flush()
        last = self._reader.ended
        spans = tuple(channel.find_speech(fresh[:, number], last=last) for number, channel in enumerate(self._channels))
        settled = min(channel.settled for channel in self._channels)
        damage = self._reader.damage
        return Piece(spans, settled, self._reader.samples, damage.bad_packets, damage.missing_seconds, last)

    def _read(self) -> Pcm:
        try:
            return self._reader.read(int(self.request.piece_seconds * SAMPLE_RATE))
        except JobError:
            raise
        except Exception as error:  # FFmpeg knows more ways to fail than its documentation
            if lacks_memory(error):
                raise
            raise JobError(ErrorClass.DECODER_CRASH, f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        self._reader.__exit__()
        self._file.close()


_recordings: dict[int, _OpenRecording] = {}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a decoder may use up, `file_bytes` for the PCM of a recording."""

    memory_bytes: int
    files: int
    file_bytes: int


def setup(limits: Limits) -> None:
    """Load what every recording needs, the VAD (2 MB); then no more than `limits`."""
    failpoints.arm_child()
    get_vad_model()
    limit_process(memory_bytes=limits.memory_bytes, files=limits.files, file_bytes=limits.file_bytes)


@contextmanager
def _errors_that_travel() -> Iterator[None]:
    """Turn every library's want of memory into a MemoryError: the parent takes no classes that it does not know."""
    try:
        yield
    except Exception as error:
        if lacks_memory(error):
            raise MemoryError(str(error)) from None
        raise


@_errors_that_travel()
def open_recording(token: int, request: DecodeRequest, abandoned: tuple[int, ...]) -> int:
    """Open a recording under `token`, after forgetting the `abandoned` ones; return its number of channels.

    JobError when it is no audio that may be read.
    """
    limit_cpu(request.cpu_seconds)
    for each in abandoned:
        close_recording(each)
    opened = _recordings[token] = _OpenRecording(request)
    return opened.channels


@_errors_that_travel()
def next_piece(token: int) -> Piece:
    """Decode the next piece; JobError too_long. After an error the recording is closed."""
    try:
        recording = _recordings[token]
        limit_cpu(recording.request.cpu_seconds)
        failpoints.reach_blocking("decoder.piece")
        piece = recording.next_piece()
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
