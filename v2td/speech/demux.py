"""Reads any recording as 16 kHz int16 PCM, mixed or channel by channel, with PyAV; runs in the decoder child.

Damage is never silent: packets that do not decode are counted, holes in the timestamps are filled with silence
(so that later times stay right) and counted too. faster-whisper's own reader swallows both.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from v2td.errors import ErrorClass, JobError
from v2td.jobs import SAMPLE_RATE
from v2td.speech.cut import UNKNOWN_RIFF_BYTES, has_frame_count, is_cut

Pcm = NDArray[np.int16]  # (frames, channels)

# Demuxers that read one local file. Playlists and session descriptions (HLS, DASH, SDP, ffconcat) open others
# and the network, so they are not among them. Still pictures are: their failure then says "no audio".
FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dts,eac3,flac,flv,gif,gsm,jpeg_pipe,matroska,webm,mov,mp4,m4a,"
    "3gp,3g2,mj2,mp2,mp3,mpeg,mpegts,ogg,png_pipe,spx,tta,voc,w64,wav,webp_pipe,wv,xwma"
)
# Decoders of what people record. FFmpeg has hundreds more, for films, pictures and old games, and would try the video
# and the cover of a file before it says what is in it: they are the weakest part of it.
CODECS = (
    "aac,aac_fixed,aac_latm,ac3,ac3_fixed,adpcm_g722,adpcm_g726,adpcm_g726le,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,"
    "adpcm_swf,adpcm_yamaha,alac,amrnb,amrwb,ape,dca,eac3,evrc,flac,g722,g723_1,g726,g726le,g729,gsm,gsm_ms,ilbc,"
    "libopencore_amrnb,libopencore_amrwb,libopus,libspeex,libvorbis,mlp,mp1,mp1float,mp2,mp2float,mp3,mp3adu,"
    "mp3adufloat,mp3float,nellymoser,opus,pcm_alaw,pcm_bluray,pcm_dvd,pcm_f16le,pcm_f24le,pcm_f32be,pcm_f32le,"
    "pcm_f64be,pcm_f64le,pcm_mulaw,pcm_s16be,pcm_s16be_planar,pcm_s16le,pcm_s16le_planar,pcm_s24be,pcm_s24le,"
    "pcm_s24le_planar,pcm_s32be,pcm_s32le,pcm_s32le_planar,pcm_s64be,pcm_s64le,pcm_s8,pcm_s8_planar,pcm_u16be,"
    "pcm_u16le,pcm_u24be,pcm_u24le,pcm_u32be,pcm_u32le,pcm_u8,qcelp,sbc,speex,truehd,truespeech,tta,vorbis,wavpack,"
    "wmalossless,wmapro,wmav1,wmav2,wmavoice"
)
MANIFEST = re.compile(rb"#EXTM3U|(<\?xml[^>]*>\s*)?(<!--(?:(?!-->).)*-->\s*)*<(MPD|SmoothStreamingMedia)\b", re.DOTALL)
MANIFEST_BYTES = 4096  # at the start of the file
# Containers that say how many samples or bytes of sound they hold.
EXACT = frozenset({"wav", "w64", "aiff", "au", "caf", "flac", "tta", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
HOLE_SECONDS = 0.1  # smaller jumps of the timestamps are rounding
MAX_HOLE_SECONDS = 600.0  # larger ones are a new clock, not a hole


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a recording may be: longest in seconds, lowest and highest sample rate in Hz, most channels."""

    max_seconds: float
    min_sample_rate: int = 4_000
    max_sample_rate: int = 384_000
    max_channels: int = 8

    def check(self, sample_rate: int, channels: int) -> None:
        """Raise JobError bad_params for a rate or a number of channels that is not read."""
        if not self.min_sample_rate <= sample_rate <= self.max_sample_rate:
            wanted = f"{self.min_sample_rate} to {self.max_sample_rate} Hz are read"
            raise JobError(ErrorClass.BAD_PARAMS, f"a sample rate of {sample_rate} Hz; {wanted}")
        if not 1 <= channels <= self.max_channels:
            raise JobError(ErrorClass.BAD_PARAMS, f"{channels} channels; 1 to {self.max_channels} are read")

    def readable(self, sample_rate: int, channels: int) -> bool:
        """Whether `check` has nothing to say."""
        try:
            self.check(sample_rate, channels)
        except JobError:
            return False
        return True


@dataclass(slots=True)
class Damage:
    """What was wrong with a recording: undecodable packets, seconds that are missing."""

    bad_packets: int = 0
    missing_seconds: float = 0.0

    @property
    def found(self) -> bool:
        """Whether anything is missing."""
        return self.bad_packets > 0 or self.missing_seconds > 0


class PcmReader:
    """Decodes the first audio stream of a file, piece by piece; a context manager.

    All channels are mixed into one, unless `split`. Raises JobError: not_audio, no_audio, format_forbidden,
    bad_params, too_long.
    """

    def __init__(self, path: Path, accepted: Accepted, *, split: bool = False) -> None:
        self.damage = Damage()
        self._path = path
        self.samples = 0  # of each channel at SAMPLE_RATE, read so far
        self._accepted = accepted
        self._max_samples = int(accepted.max_seconds * SAMPLE_RATE)
        self._split = split
        self._container = _open(path)
        try:
            self._stream = _audio_stream(self._container)
            _check_parameters(self._stream, accepted)
        except BaseException:
            self._container.close()
            raise
        self.channels = self._stream.channels if split else 1
        self._origin: Fraction | None = None  # time of the first frame
        self._chunks = self._decode()
        self.ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._chunks.close()
        self._container.close()

    def read(self, samples: int) -> Pcm:
        """Return at least `samples` more samples of each channel, fewer only at the end."""
        chunks: list[Pcm] = []
        length = 0
        while length < samples and (chunk := next(self._chunks, None)) is not None:
            chunks.append(chunk)
            length += len(chunk)
            self.samples += len(chunk)
            if self.samples > self._max_samples:
                raise JobError(ErrorClass.TOO_LONG, f"longer than {self._max_samples / SAMPLE_RATE:g} s")
        if length < samples and not self.ended:
            self.ended = True
            self._compare_with_container()
        return np.concatenate(chunks) if chunks else np.zeros((0, self.channels), np.int16)

    def _decode(self) -> Generator[Pcm, None, None]:
        resampler: av.AudioResampler | None = None
        shape: tuple[str, str, int] | None = None
        for frame in self._frames():
            if (now := (frame.format.name, frame.layout.name, frame.sample_rate)) != shape:
                shape = now  # streams may change their rate or layout on the way
                if resampler is not None:
                    yield from self._samples(resampler.resample(None))
                layout = frame.layout if self._split else "mono"
                resampler = av.AudioResampler(format="s16", layout=layout, rate=SAMPLE_RATE)
            yield from self._fill_hole(frame)
            frame.pts = None  # the resampler would answer holes in its own way
            assert resampler is not None
            yield from self._samples(resampler.resample(frame))
        if resampler is not None:
            yield from self._samples(resampler.resample(None))

    def _frames(self) -> Iterator[av.AudioFrame]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except MemoryError:  # one of FFmpeg's errors, too
                raise
            except (av.error.FFmpegError, IndexError):  # IndexError: PyAV, of a stream that turns up on the way
                self.damage.bad_packets += 1  # the demuxer is lost: nothing comes after this
                return
            try:
                for frame in packet.decode():
                    if self._accepted.readable(frame.sample_rate, frame.layout.nb_channels):
                        yield frame
                    else:  # a damaged header may say 47 channels
                        self.damage.bad_packets += 1
            except MemoryError:
                raise
            except av.error.FFmpegError:
                self.damage.bad_packets += 1

    def _fill_hole(self, frame: av.AudioFrame) -> Iterator[Pcm]:
        if frame.pts is None or frame.time_base is None:
            return
        at = frame.pts * frame.time_base
        if self._origin is None:
            self._origin = at
        hole = float(at - self._origin) - self.samples / SAMPLE_RATE
        if HOLE_SECONDS < hole < MAX_HOLE_SECONDS:
            self.damage.missing_seconds += hole
            yield np.zeros((int(hole * SAMPLE_RATE), self.channels), np.int16)

    def _samples(self, frames: list[av.AudioFrame]) -> Iterator[Pcm]:
        for frame in frames:
            pcm: Pcm = frame.to_ndarray().reshape(-1, frame.layout.nb_channels).astype(np.int16, copy=False)
            yield _with_channels(pcm, self.channels)

    def _compare_with_container(self) -> None:
        if is_cut(self._path, self._container.format.name):
            self.damage.bad_packets += 1  # how much is missing cannot be known
        declared = self._declared_seconds()
        missing = declared - self.samples / SAMPLE_RATE
        tolerance = 0.5 if self._declares_exactly() else max(1.0, 0.02 * declared)
        if missing > tolerance:
            self.damage.missing_seconds += missing

    def _declares_exactly(self) -> bool:
        """Whether the length is that of this stream, by the container's own word; else it is FFmpeg's estimate."""
        name = self._container.format.name
        if name == "mp3":
            return has_frame_count(self._path)
        return name in EXACT and (len(self._container.streams) == 1 or self._stream.duration is not None)

    def _declared_seconds(self) -> float:
        """Return how long the recording should be, 0 when the container does not tell."""
        seconds = (self._container.duration or 0) / av.time_base
        if self._stream.duration is not None and self._stream.time_base is not None:  # a film may be longer
            seconds = min(seconds, float(self._stream.duration * self._stream.time_base))
        if self._container.format.name == "matroska,webm" and self._origin is not None:
            seconds -= max(0.0, float(self._origin))  # counts from 0
        if self._container.format.name == "wav" and self._stream.bit_rate:
            # FFmpeg goes by the size of the file. What could not seek back wrote a size of 2 or 4 GB.
            with self._path.open("rb") as file:
                riff_bytes = int.from_bytes(file.read(8)[4:], "little")
            if riff_bytes < UNKNOWN_RIFF_BYTES:
                seconds += max(0, 8 + riff_bytes - self._container.size) * 8 / self._stream.bit_rate
        return seconds


def _open(path: Path) -> av.container.InputContainer:
    _touch(path)
    options = {"format_whitelist": FORMATS, "codec_whitelist": CODECS, "protocol_whitelist": "file"}
    try:
        return av.open(str(path), options=options, metadata_errors="ignore")
    except av.error.ArgumentError as error:  # a demuxer that is not in FORMATS
        if _is_plain_text(path):
            raise JobError(ErrorClass.NOT_AUDIO, "a text file") from error
        raise JobError(ErrorClass.FORMAT_FORBIDDEN, "not one of the container formats that are read") from error
    except (av.error.InvalidDataError, av.error.EOFError) as error:
        if _is_manifest(path):  # FFmpeg takes HLS for a playlist only when its name says so; DASH needs libxml2
            raise JobError(ErrorClass.FORMAT_FORBIDDEN, "a playlist is not read, for it opens other files") from None
        raise JobError(ErrorClass.NOT_AUDIO, "no known audio format") from error
    except MemoryError:
        raise
    except av.error.FFmpegError as error:
        raise JobError(ErrorClass.NOT_AUDIO, f"cannot be opened: {error.strerror}") from error


def _touch(path: Path) -> None:
    """Raise the OSError of a file that we cannot read; any that FFmpeg answers afterwards is the recording's fault.

    Matroska cut within its header is EIO, for one.
    """
    try:
        with path.open("rb") as file:
            file.read(MANIFEST_BYTES)
    except FileNotFoundError as error:
        raise JobError(ErrorClass.NOT_AUDIO, f"cannot be opened: {error.strerror}") from error


def _is_manifest(path: Path) -> bool:
    """Tell a playlist of HLS, DASH or Smooth Streaming, which names other files."""
    with path.open("rb") as file:
        return MANIFEST.match(file.read(MANIFEST_BYTES).lstrip()) is not None


def _is_plain_text(path: Path) -> bool:
    """Tell prose, HTML or JSON, which FFmpeg may take for subtitles, from files that name other files."""
    with path.open("rb") as file:
        head = file.read(4096)
    playlist = head.lstrip().startswith((b"#EXTM3U", b"v=0", b"ffconcat", b"<?xml", b"<MPD", b"<Smooth"))
    return not playlist and b"\0" not in head and not head.translate(None, bytes(range(9, 14)) + bytes(range(32, 256)))


def _audio_stream(container: av.container.InputContainer) -> av.AudioStream:
    if not container.streams.audio:
        raise JobError(ErrorClass.NO_AUDIO, f"no audio stream in this {container.format.name} file")
    return container.streams.audio[0]


def _check_parameters(stream: av.AudioStream, accepted: Accepted) -> None:
    context = stream.codec_context
    if context is None:
        raise JobError(ErrorClass.BAD_PARAMS, "unknown audio codec")
    if context.name not in CODECS.split(","):
        raise JobError(ErrorClass.BAD_PARAMS, f"the audio codec {context.name} is not read")
    accepted.check(context.sample_rate, stream.channels)


def _with_channels(pcm: Pcm, count: int) -> Pcm:
    """Return `pcm` with so many channels: a stream may change their number on the way.

    Those that are missing are silent; those that are too many are mixed into the last.
    """
    found = pcm.shape[1]
    if found < count:
        return np.pad(pcm, ((0, 0), (0, count - found)))
    if found > count:
        mixed = pcm[:, count - 1 :].mean(axis=1, keepdims=True).astype(np.int16)
        return np.hstack([pcm[:, : count - 1], mixed])
    return pcm
