"""A1 to A30: files that are no audio, recordings that are broken, and decoders that die of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import av
import numpy as np
from numpy.typing import NDArray

from tests.corpus import flac
from tests.corpus.case import Case, Lane, Place, Row, job
from tests.corpus.wav import fmt, wav
from tests.speech.sounds import Pcm, bundled, encode, encode_as, read
from v2td.jobs import SAMPLE_RATE

NOT_AUDIO, NO_AUDIO = "P not_audio", "P no_audio"
FORBIDDEN_FORMAT = "P format_forbidden"
NEVER_SILENT = "OK truncated*"  # the sound that there is, and the word that it is not all
SMALL_RSS_BYTES = 300_000_000
SHAPES = ("wav", "flac", "mp3", "vorbis.ogg", "opus.ogg", "webm", "m4a")
NOISE = random.Random(6).randbytes(100_000)


def cases(place: Place) -> Iterator[Case]:
    """Yield A1 to A30."""
    speech = read(bundled("en-04.ogg").path)  # 9 s
    yield from _no_audio(place)
    yield from _bad_parameters(place)
    yield from _manifests(place)
    yield from _short(place)
    yield from _truncated(place, np.concatenate([speech] * 3))
    yield from _odd(place, speech)
    yield from _crashes(place)


def sound(place: Place, name: str, expected: str, data: bytes, *, file: str = "a.wav", **more: object) -> Case:
    """Return the case of a recording that is served as it should be."""
    lane: Lane = more.pop("lane", "audio")  # type: ignore[assignment]  # object keeps the signature short
    url = place.web.body(f"{lane}/{name}/{file}", data)
    return Case(name, expected, job(url, language="en"), lane=lane, **more)  # type: ignore[arg-type]  # as above


def _no_audio(place: Place) -> Iterator[Case]:
    html = b"<!DOCTYPE html><html><head><title>404</title></head><body>Not found</body></html>\n" * 20
    yield sound(place, "A1 empty", NOT_AUDIO, b"")
    yield sound(place, "A2 one byte", NOT_AUDIO, b"\0")
    yield sound(place, "A3 random", NOT_AUDIO, NOISE)
    yield sound(place, "A4 zeros", NOT_AUDIO, bytes(100_000))
    yield sound(place, "A5 HTML named .mp3", NOT_AUDIO, html, file="a.mp3")
    yield sound(place, "A6 text", NOT_AUDIO, b"Call me Ishmael. Some years ago, never mind how long.\n" * 50)
    for number, (suffix, codec, frames) in enumerate(
        (("mp4", "mpeg4", 20), ("mkv", "mpeg4", 20), ("avi", "mpeg4", 20)), 1
    ):
        yield sound(place, f"A7 video only {number}", NO_AUDIO, _film(place.folder / f"film.{suffix}", codec, frames))
    yield sound(place, "A8 PNG", NO_AUDIO, _film(place.folder / "picture.png", "png", 1), file="a.png")


def _film(path: Path, codec: str, frames: int) -> bytes:
    with av.open(str(path), "w", format="image2" if codec == "png" else None) as container:
        stream = container.add_stream(codec, rate=5)
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = 64
        stream.pix_fmt = "rgb24" if codec == "png" else "yuv420p"
        for shade in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), shade, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


def _bad_parameters(place: Place) -> Iterator[Case]:
    data = bytes(32_000)
    yield sound(place, "A9 0 channels", "P *", wav(data, fmt(channels=0)))
    yield sound(place, "A10 65535 channels", "P *", wav(data, fmt(channels=65535)))
    yield sound(place, "A10 65535 channels of 8 bits", "P *", wav(bytes(200_000), fmt(channels=65535, bits=8)))
    yield sound(place, "A11 rate 0", "P *", wav(data, fmt(rate=0)))
    yield sound(place, "A11 rate 4G", "P *", wav(data, fmt(rate=0xFFFF_FFFF)))
    yield sound(place, "A12 unknown codec", "P *", wav(data, fmt(tag=0x7777)))
    slow = wav(data, fmt(rate=1))
    yield sound(place, "A17 WAV at 1 Hz", "P bad_params", slow, max_rss_bytes=SMALL_RSS_BYTES)


def _manifests(place: Place) -> Iterator[Case]:
    trap = f"http://127.0.0.1:{place.trap.port}/a.wav"
    session = f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {place.trap.port} RTP/AVP 0\n"
    yield sound(place, "A13 SDP", FORBIDDEN_FORMAT, session.encode(), file="a.sdp")
    for number, target in enumerate((trap, "/etc/passwd", "file:///etc/passwd", "concat:/etc/passwd|/etc/hosts"), 1):
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n"
        yield sound(place, f"A14 HLS {number}", FORBIDDEN_FORMAT, playlist.encode(), file="a.m3u8")
        concat = f"ffconcat version 1.0\nfile '{target}'\n"
        yield sound(place, f"A15 ffconcat {number}", FORBIDDEN_FORMAT, concat.encode())
    xml = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
        f'<Representation id="1" mimeType="audio/mp4"><BaseURL>{trap}</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>"
    )
    yield sound(place, "A16 DASH", FORBIDDEN_FORMAT, xml.encode(), file="a.mpd")


def _short(place: Place) -> Iterator[Case]:
    yield sound(place, "A18 header only", "OK empty", wav(b""))
    yield sound(place, "A19 one sample", "OK empty", wav(b"\0\0"))
    yield sound(place, "A20 a file of 400 bytes", "OK empty", wav(bytes(356)))


def _truncated(place: Place, speech: Pcm) -> Iterator[Case]:
    """Yield recordings of 27 s of which half is cut off, or the middle damaged."""
    for shape in SHAPES:
        whole = encode(speech, place.folder / f"whole.{shape}", shape).read_bytes()
        half = whole[: len(whole) // 2]
        damaged = bytearray(whole)
        size = min(6000, len(whole) // 10)
        damaged[len(whole) // 2 : len(whole) // 2 + size] = NOISE[:size]
        seen = NEVER_SILENT if shape != "wav" else "OK"  # any bytes are samples
        index_at_end = shape == "m4a"
        cut = "P not_audio" if index_at_end else NEVER_SILENT
        yield sound(place, f"A21 cut at half: {shape}", cut, half, file=f"a.{shape}")
        yield sound(place, f"A22 damaged in the middle: {shape}", seen, bytes(damaged), file=f"a.{shape}")
        refused = {"file": f"a.{shape}", "lane": "strict"}
        name = f"A21 cut at half, not accepted: {shape}"
        yield sound(place, name, "P not_audio" if index_at_end else "P truncated", half, **refused)
        if shape != "wav":
            name = f"A22 damaged in the middle, not accepted: {shape}"
            yield sound(place, name, "P truncated", bytes(damaged), **refused)
        if index_at_end:
            without_index = whole.replace(b"moov", b"junk")  # FFmpeg finds one that is called free
            yield sound(place, "A23 M4A without moov", "P *", without_index, file="a.m4a")


def _odd(place: Place, speech: Pcm) -> Iterator[Case]:
    good = wav(speech.tobytes())
    yield sound(place, "A23 a name with ../", "OK", good, file=f"{quote('../../../../tmp/evil', safe='')}.wav")
    yield sound(place, "A24 a WAV that claims 4 GB", "OK", wav(speech.tobytes(), size=0xFFFF_FFFF))
    yield sound(place, "A25 silence", "OK empty", wav(bytes(2 * 20 * SAMPLE_RATE)))
    yield sound(place, "A26 noise", "OK*", wav(_as_pcm(np.random.default_rng(1).normal(0, 0.1, 10 * SAMPLE_RATE))))
    times = np.arange(10 * SAMPLE_RATE) / SAMPLE_RATE
    pitches = np.array([[220], [277.2], [329.6], [440]])
    chord = np.sin(2 * np.pi * pitches * times).sum(axis=0) / 8
    yield sound(place, "A26 music", "OK*", wav(_as_pcm(chord)))
    yield sound(place, "A27 24 h of silent FLAC", "P too_long", flac.silence(86_400), check=_not_heard)
    glued = b"".join(
        encode_as(speech, place.folder / f"{rate}.mp3", "libmp3lame", rate, layout).read_bytes()
        for rate, layout in ((44_100, "stereo"), (22_050, "mono"), (48_000, "stereo"))
    )
    yield sound(place, "A28 the sample rate changes", "OK*", glued, file="a.mp3")
    for shape in SHAPES:
        data = np.frombuffer((place.folder / f"whole.{shape}").read_bytes(), np.uint8).copy()
        flips = np.random.default_rng(29).integers(0, len(data), 10_000)
        data[flips] ^= (1 << (flips % 8)).astype(np.uint8)
        yield sound(place, f"A29 10k bit flips: {shape}", "OK* | P *", data.tobytes(), file=f"a.{shape}")


def _crashes(place: Place) -> Iterator[Case]:
    data = wav(bytes(32_000))
    lanes: dict[Lane, str] = {"segv": "SIGSEGV", "hang": "hang", "oom": "out of memory"}
    for lane, name in lanes.items():
        yield sound(place, f"A30 decoder: {name}", "P decoder_crash", data, lane=lane)


def _as_pcm(signal: NDArray[np.float64]) -> bytes:
    return bytes((np.clip(signal, -1, 1) * 32767).astype("<i2").tobytes())


def _not_heard(row: Row) -> str | None:
    return "it was heard" if "text" in row else None
