"""Recordings that nobody listed: bombs, nests, polyglots and headers that claim what no file holds."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np

from tests.corpus import flac
from tests.corpus.audio import FORBIDDEN_FORMAT, NEVER_SILENT, NOISE, NOT_AUDIO, sound
from tests.corpus.case import Case, Place, job
from tests.corpus.containers import UNKNOWN, box, element, id3, id3_frame, matroska, number, ogg_page, png_of
from tests.corpus.wav import chunk, fmt, wav
from tests.fuzz.findings import FINDINGS
from tests.speech.sounds import Pcm, bundled, encode, encode_as, read, silence
from v2td.jobs import SAMPLE_RATE

COVER_BYTES = 200_000_000
REFUSED = "P *"
ANY = "OK* | P *"
SECOND = bytes(2 * SAMPLE_RATE)


def cases(place: Place) -> Iterator[Case]:
    """Yield them."""
    speech = read(bundled("en-01.flac").path)
    yield from _waves(place, speech)
    yield from _tags(place, speech)
    yield from _matroska(place, speech)
    yield from _mp4(place, speech)
    yield from _ogg(place, speech)
    yield from _others(place, speech)
    yield from _texts(place)
    yield from _cut(place, speech)


def _waves(place: Place, speech: Pcm) -> Iterator[Case]:
    data = speech.tobytes()
    nan = np.tile(np.array([np.nan, np.inf, -np.inf, 1e38], "<f4"), 8000).tobytes()
    yield sound(place, "own: WAV of NaN and infinities", ANY, wav(nan, fmt(tag=3, bits=32)))
    double = np.full(16_000, 1e308, "<f8").tobytes()
    yield sound(place, "own: WAV of 64-bit floats too large", ANY, wav(double, fmt(tag=3, bits=64)))
    yield sound(place, "own: WAV of 0 bits", REFUSED, wav(data, fmt(bits=0)))
    yield sound(place, "own: WAV with block align 0", ANY, wav(data, fmt(align=0)))
    yield sound(place, "own: WAV with block align 65535", ANY, wav(data, fmt(align=65535)))
    yield sound(place, "own: ADPCM with blocks of 64 kB", ANY, wav(NOISE, fmt(tag=2, bits=4, align=65535)))
    many = chunk(b"JUNK", b"") * 100_000
    yield sound(place, "own: WAV with 100,000 chunks", "OK", wav(data, before=many))
    texts = chunk(b"LIST", b"INFO" + b"".join(chunk(b"I%03d" % n, b"x" * 200) for n in range(1000)))
    yield sound(place, "own: WAV with 1000 tags", "OK", wav(data, before=texts))
    lying = chunk(b"LIST", b"INFO", 0xFFFF_FFF0)
    yield sound(place, "own: WAV with a list of 4 GB", ANY, wav(data, before=lying))
    yield sound(
        place, "own: WAV at 384 kHz with 8 channels", "OK*", wav(bytes(6_144_000), fmt(rate=384_000, channels=8))
    )
    loud = wav(np.where(np.arange(16_000) % 2, 32767, -32768).astype("<i2").tobytes())
    yield sound(place, "own: a square wave at half the rate", "OK*", loud)
    archive = io.BytesIO()
    archive.write(wav(data))
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("payload.py", "import os")
    yield sound(place, "own: WAV that is a ZIP, too", "OK*", archive.getvalue())
    page = b"<script>fetch('http://127.0.0.1/')</script>"
    yield sound(
        place, "own: WAV that is a page, too", "OK", wav(data, before=chunk(b"LIST", b"INFO" + chunk(b"ICMT", page)))
    )


def _tags(place: Place, speech: Pcm) -> Iterator[Case]:
    mp3 = encode(speech, place.folder / "own.mp3", "mp3").read_bytes()
    picture = b"\0image/png\0\x03\0" + png_of(64, 64)
    large = id3(id3_frame(b"APIC", picture, COVER_BYTES), COVER_BYTES + 10)
    yield sound(place, "own: MP3 with a cover of 200 MB that is not there", ANY, large + mp3, file="a.mp3")
    huge = id3(id3_frame(b"APIC", b"\0image/png\0\x03\0" + png_of(65_500, 65_500)))
    yield sound(place, "own: MP3 with a cover of 65,500 by 65,500", "OK", huge + mp3, file="a.mp3")
    bomb = zlib.compress(bytes(100_000_000), 9)
    packed = struct.pack(">I", 0x7F7F7F7F) + bomb  # its length unpacked, then zlib (flags k and p)
    squeezed = id3(id3_frame(b"TXXX", packed, flags=0x09))
    yield sound(place, "own: MP3 with a tag that unpacks to 100 MB", "OK", squeezed + mp3, file="a.mp3")
    many = id3(id3_frame(b"TXXX", b"\3a\0b") * 100_000)
    yield sound(place, "own: MP3 with 100,000 tags", "OK", many + mp3, file="a.mp3")
    yield sound(place, "own: MP3 behind 1000 ID3 headers", "OK", id3(b"") * 1000 + mp3, file="a.mp3")
    chapters = b"".join(id3_frame(b"CHAP", b"c%05d\0" % n + bytes(16)) for n in range(10_000))
    yield sound(place, "own: MP3 with 10,000 chapters", "OK", id3(chapters) + mp3, file="a.mp3")
    xing = mp3.find(b"Xing") if b"Xing" in mp3 else mp3.find(b"Info")
    lying = mp3[: xing + 8] + b"\x7f\xff\xff\xff" + mp3[xing + 12 :]
    yield sound(place, "own: MP3 that claims to last for years", f"{NEVER_SILENT} | P *", lying, file="a.mp3")
    whole = encode(speech, place.folder / "own.flac", "flac").read_bytes()
    cover = b"\x06" + (0xFF_FFFF).to_bytes(3, "big") + struct.pack(">II", 3, COVER_BYTES)
    yield sound(place, "own: FLAC with a picture of 200 MB that is not there", ANY, whole[:42] + cover + whole[42:])
    yield sound(place, "own: MP3 inside a WAV inside an ID3", ANY, id3(wav(mp3)) + wav(mp3, fmt(tag=0x55)))


def _matroska(place: Place, speech: Pcm) -> Iterator[Case]:
    step = SAMPLE_RATE // 10
    blocks = [(n * 100, speech[n * step : (n + 1) * step].tobytes()) for n in range(len(speech) // step)]
    yield sound(place, "own: Matroska as it should be", "OK", matroska(blocks))
    nest = b""
    for _ in range(20_000):
        nest = element(0x67C8, nest)
    tags = element(0x1254C367, element(0x7373, nest))
    yield sound(place, "own: Matroska with tags nested 20,000 deep", ANY, matroska(blocks, more=tags))
    inner = b""
    for _ in range(2000):
        inner = element(0x18538067, inner)
    yield sound(place, "own: Matroska with segments in segments", ANY, matroska(blocks, more=inner))
    void = element(0xEC, b"", UNKNOWN - 1)
    yield sound(place, "own: Matroska with a void of 2^56 bytes", ANY, matroska(blocks, more=void))
    private = struct.pack(">HH", 1, 1) * 1_000_000
    yield sound(place, "own: Matroska with 4 MB of private data", ANY, matroska(blocks, private=private))
    compression = element(
        0x6D80, element(0x6240, number(0x5031, 0) + number(0x5032, 1) + element(0x5034, number(0x4254, 0)))
    )
    bomb = [(0, zlib.compress(bytes(1_000_000_000), 9))]
    yield sound(
        place, "own: Matroska block that unpacks to 1 GB", ANY, matroska(bomb, encodings=compression), file="a.mkv"
    )
    tiny = ((n // 16, b"\0\0") for n in range(10_000))
    yield sound(place, "own: 10,000 packets of one sample", "OK*", matroska(tiny))
    tiny = ((n // 16, b"\0\0") for n in range(1_000_000))
    name = "own: a million packets of one sample"  # as many as the decoder can in its time, or no more of it
    # What a million little arrays took stays with the child, and so counts for those that come after them.
    much = 900_000_000
    yield sound(place, name, "OK* | P decoder_crash", matroska(tiny), slow=True, max_rss_bytes=much)
    jumps = [(n * 599_000, b"\0\0") for n in range(1000)]
    yield sound(place, "own: a week of holes in 40 kB", "P too_long", matroska(jumps), max_rss_bytes=much)
    back = [((len(blocks) - n) * 100, data) for n, (_, data) in enumerate(blocks)]
    yield sound(place, "own: time that runs backwards", ANY, matroska(back), max_rss_bytes=much)
    yield sound(place, "own: a rate of NaN", ANY, matroska(blocks, rate=float("nan")), max_rss_bytes=much)
    yield sound(place, "own: a rate of 10^30", ANY, matroska(blocks, rate=1e30), max_rss_bytes=much)


def _mp4(place: Place, speech: Pcm) -> Iterator[Case]:
    whole = encode(speech, place.folder / "own.m4a", "m4a").read_bytes()
    kind = box(b"ftyp", b"qt  \0\0\0\0qt  ")
    packed = box(b"dcom", b"zlib") + box(b"cmvd", struct.pack(">I", 0x7FFF_FFF0) + zlib.compress(bytes(1_000_000)))
    index = kind + box(b"moov", box(b"cmov", packed))  # 2 GB fit beyond what the child has mapped, or they do not
    yield sound(place, "own: QuickTime index that unpacks to 2 GB", f"{REFUSED} | P decoder_crash", index)
    nest = b""
    for _ in range(5000):
        nest = box(b"trak", nest)
    yield sound(place, "own: tracks in tracks, 5000 deep", REFUSED, kind + box(b"moov", nest))
    at = whole.find(b"stsz")
    lying = whole[: at + 12] + b"\x7f\xff\xff\xff" + whole[at + 16 :]
    yield sound(place, "own: M4A with a table of 2^31 samples", ANY, lying, file="a.m4a")
    yield sound(
        place, "own: M4A with a box of 2^64 bytes", ANY, whole[:-8] + box(b"free", b"\xff" * 8, 1), file="a.m4a"
    )
    url = f"http://127.0.0.1:{place.trap.port}/a.wav".encode()
    elsewhere = whole.replace(b"url \0\0\0\1", b"url \0\0\0\0") + box(b"dref", box(b"url ", b"\0\0\0\0" + url))
    yield sound(place, "own: M4A whose samples are elsewhere", ANY, elsewhere, file="a.m4a")
    movie = box(b"rmra", box(b"rmda", box(b"rdrf", b"\0\0\0\0url " + struct.pack(">I", len(url)) + url)))
    yield sound(place, "own: QuickTime that refers to a movie", REFUSED, kind + box(b"moov", movie), file="a.mov")


def _ogg(place: Place, speech: Pcm) -> Iterator[Case]:
    opus = encode(speech, place.folder / "own.opus.ogg", "opus.ogg").read_bytes()
    vorbis = encode(speech, place.folder / "own.vorbis.ogg", "vorbis.ogg").read_bytes()
    yield sound(place, "own: Ogg in a chain, Opus and Opus", "OK*", opus + opus, file="a.ogg")
    yield sound(place, "own: Ogg in a chain, Opus and Vorbis", ANY, opus + vorbis, file="a.ogg")
    begin = b"OpusHead\1" + struct.pack("<BHIhB", 1, 312, 48_000, 0, 0)
    crowd = b"".join(ogg_page(serial, 0, 0, 2, [begin]) for serial in range(5000))
    yield sound(place, "own: Ogg of 5000 streams", f"{ANY} | P decoder_crash", crowd + opus, file="a.ogg")
    loud = b"OpusHead\1" + struct.pack("<BHIhB", 1, 0xFFFF, 48_000, 0x7FFF, 0)
    yield sound(place, "own: Opus with a gain of 128 dB", ANY, _opus(loud, 200), file="a.ogg")
    wide = b"OpusHead\1" + struct.pack("<BHIhB", 255, 0, 48_000, 0, 255) + bytes([255, 0]) + bytes(255)
    yield sound(place, "own: Opus of 255 channels", REFUSED, _opus(wide, 10), file="a.ogg")
    tags = b"OpusTags" + struct.pack("<I", 4) + b"evil" + struct.pack("<I", 0xFFFF_FFFF)
    yield sound(place, "own: Opus with 2^32 comments", ANY, _opus(begin, 10, tags), file="a.ogg")
    late = b"".join(ogg_page(1, 2 + n, (n + 1) * (1 << 60), 0, [b"\xfc\xff\xfe"]) for n in range(4))
    yield sound(place, "own: Ogg whose time leaps by centuries", ANY, _opus(begin, 5) + late, file="a.ogg")


def _opus(head: bytes, packets: int, tags: bytes = b"OpusTags\0\0\0\0\0\0\0\0") -> bytes:
    pages = [ogg_page(1, 0, 0, 2, [head]), ogg_page(1, 1, 0, 0, [tags])]
    pages += [ogg_page(1, 2 + n, (n + 1) * 960, 4 * (n == packets - 1), [b"\xfc\xff\xfe"]) for n in range(packets)]
    return b"".join(pages)


def _others(place: Place, speech: Pcm) -> Iterator[Case]:
    for name, found in FINDINGS["container"].items():
        yield sound(place, f"own: found by fuzzing: {name}", ANY, found)
    claims = flac.silence(60, total=(1 << 36) - 1)
    yield sound(place, "own: FLAC that claims to last for 99 days", f"{NEVER_SILENT} | P too_long", claims)
    head = (
        b"FORM" + struct.pack(">I", 46 + len(SECOND)) + b"AIFFCOMM\0\0\0\x12" + struct.pack(">hIh", 1, SAMPLE_RATE, 16)
    )
    for name, rate in {"infinite": b"\x7f\xff" + bytes(8), "negative": b"\xc0\x0c\xfa" + bytes(7)}.items():
        aiff = head + rate + b"SSND" + struct.pack(">III", len(SECOND) + 8, 0, 0) + SECOND
        yield sound(place, f"own: AIFF at an {name} rate", REFUSED, aiff, file="a.aiff")
    au = b".snd" + struct.pack(">IIIII", 0xFFFF_FFF0, 0xFFFF_FFFF, 3, SAMPLE_RATE, 1) + SECOND
    yield sound(place, "own: AU with a header of 4 GB", ANY, au, file="a.au")
    again = (
        b"Creative Voice File\x1a"
        + struct.pack("<HHH", 26, 0x10A, 0x1129)
        + b"\x06\2\0\0\xff\xff"
        + b"\x07\0\0\0" * 100
    )
    yield sound(place, "own: VOC that repeats for ever", ANY, again, file="a.voc")
    caf = b"caff\0\1\0\0desc" + struct.pack(">QdIIIIII", 32, 16_000.0, 0x6C70636D, 2, 2, 1, 1, 16)
    yield sound(place, "own: CAF of 2^63 bytes", ANY, caf + b"data" + struct.pack(">qI", -1, 0) + SECOND, file="a.caf")
    ape = b"MAC " + struct.pack("<HHIIIIII", 3990, 0, 52, 24, 0, 0, 0, 0) + bytes(20)
    ape += struct.pack("<HHIIIHHI", 2000, 0, 73728, 1, 0x7FFF_FFFF, 16, 1, 44_100) + NOISE[:1000]
    yield sound(place, "own: APE of 2^31 frames", REFUSED, ape, file="a.ape")
    tta = b"TTA1" + struct.pack("<HHHII", 1, 1, 16, 8000, 0xFFFF_FFFF)
    yield sound(
        place, "own: TTA of 2^32 samples", REFUSED, tta + struct.pack("<I", zlib.crc32(tta)) + NOISE, file="a.tta"
    )
    for shape in ("flac", "mp3", "m4a", "webm"):
        data = (
            (place.folder / f"own.{shape}").read_bytes()
            if shape != "webm"
            else encode(speech, place.folder / "own.webm", "webm").read_bytes()
        )
        yield sound(place, f"own: {shape} behind 64 kB of noise", ANY, NOISE[:65_536] + data)
    rates = (8_000, 48_000, 11_025, 96_000)
    parts = [encode_as(speech[:3200], place.folder / f"{rate}.aac", "aac", rate, "mono").read_bytes() for rate in rates]
    yield sound(place, "own: AAC whose rate changes 400 times", ANY, b"".join(parts * 100), file="a.aac")
    yield sound(place, "own: 500 s of silence at 384 kHz", "OK empty", flac.silence(500, 384_000))


def _texts(place: Place) -> Iterator[Case]:
    texts = {
        "SRT": "1\n00:00:01,000 --> 00:00:02,000\n<script>alert(1)</script>\n",
        "WebVTT": "WEBVTT\n\n00:01.000 --> 00:02.000\n<v x>text\n",
        "ASS": "[Script Info]\nScriptType: v4.00+\n[Events]\nDialogue: 0,0:00:01.00,0:00:02.00,x,,0,0,0,,{\\p1}m 0 0\n",
        "XSPF": '<?xml version="1.0"?><playlist xmlns="http://xspf.org/ns/0/"><trackList/></playlist>',
        "SVG": '<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "M3U without its mark": f"http://127.0.0.1:{place.trap.port}/a.mp3\n",
        "PLS": f"[playlist]\nFile1=http://127.0.0.1:{place.trap.port}/a.mp3\n",
        "an entity bomb": '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "x"><!ENTITY b "&a;&a;">]><MPD>&b;</MPD>',
    }
    for name, text in texts.items():
        yield sound(place, f"own: {name}", f"{NOT_AUDIO} | {FORBIDDEN_FORMAT} | P no_audio", text.encode() * 3)
    yield sound(
        place, "own: MIDI", f"{NOT_AUDIO} | {FORBIDDEN_FORMAT}", b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\4\0\xff\x2f\0"
    )
    yield sound(place, "own: an ELF file", NOT_AUDIO, b"\x7fELF\2\1\1" + bytes(57) + NOISE)


def _cut(place: Place, speech: Pcm) -> Iterator[Case]:
    """Yield streams without an index, which tell of a cut by their last packet alone."""
    for suffix, codec in {
        "aac": "aac",
        "mp3": "libmp3lame",
        "ts": "aac",
        "aiff": "pcm_s16be",
        "mka": "libopus",
    }.items():
        path = place.folder / f"cut.{suffix}"
        data = encode_as(speech, path, codec, 48_000, "mono").read_bytes()
        expected = NEVER_SILENT
        yield sound(
            place,
            f"own: cut in the middle of a packet: {suffix}",
            expected,
            data[: len(data) * 6 // 10 // 188 * 188 + 100],
            file=f"a.{suffix}",
        )
    quiet = encode(silence(1), place.folder / "quiet.mp3", "mp3").read_bytes()
    yield sound(place, "own: MP3 of two recordings, one behind the other", "OK*", quiet + quiet, file="a.mp3")
    yield Case(
        "own: the same recording under two names",
        "OK",
        job(place.web.body("one/a b%2f.wav", wav(speech.tobytes())), language="en"),
        lane="audio",
    )
