import resource
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.speech.sounds import SHAPES, bundled, encode, encode_as, read, silence, wav_header
from v2td.errors import ErrorClass, JobError
from v2td.jobs import SAMPLE_RATE
from v2td.speech.demux import CODECS, Accepted, Damage, PcmReader

NAME = "en-04.ogg"  # 9 s


def heard(path: Path, max_seconds: float = 3600, piece: int = 60 * SAMPLE_RATE) -> tuple[int, Damage]:
    """Samples and damage of a whole file."""
    with PcmReader(path, Accepted(max_seconds)) as reader:
        while not reader.ended:
            reader.read(piece)
        return reader.samples, reader.damage


def refused(path: Path, max_seconds: float = 3600) -> ErrorClass:
    with pytest.raises(JobError) as caught:
        heard(path, max_seconds)
    assert str(path.parent) not in caught.value.reason
    return caught.value.error_class


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_sounds_the_same(tmp_path: Path, shape: str) -> None:
    original = read(bundled(NAME).path)
    path = encode(original, tmp_path / f"sound.{shape}", shape)
    decoded = read(path)
    assert heard(path)[1] == Damage()
    assert len(decoded) == pytest.approx(len(original), abs=0.15 * SAMPLE_RATE)  # codecs pad
    # The loudness over time is the same: codecs keep that, if not the samples.
    step = SAMPLE_RATE // 10
    steps = min(len(decoded), len(original)) // step
    envelopes = [
        np.abs(each[: steps * step].astype(float)).reshape(steps, step).mean(axis=1) for each in (original, decoded)
    ]
    assert np.corrcoef(*envelopes)[0, 1] > 0.9


@pytest.mark.parametrize("shape", SHAPES)
def test_reading_in_small_pieces_loses_nothing(tmp_path: Path, shape: str) -> None:
    path = encode(read(bundled(NAME).path), tmp_path / f"sound.{shape}", shape)
    with PcmReader(path, Accepted(3600)) as reader:
        pieces = []
        while not reader.ended:
            pieces.append(reader.read(1000))
    assert all(len(piece) >= 1000 for piece in pieces[:-1])
    assert np.array_equal(np.concatenate(pieces)[:, 0], read(path))


def test_a_piece_that_ends_with_the_recording_is_followed_by_an_empty_one(tmp_path: Path) -> None:
    path = encode(silence(1), tmp_path / "one.wav")
    with PcmReader(path, Accepted(10)) as reader:
        assert len(reader.read(SAMPLE_RATE)) == SAMPLE_RATE
        assert not reader.ended
        assert len(reader.read(SAMPLE_RATE)) == 0
        assert reader.ended


def test_the_rate_and_the_channels_may_change_on_the_way(tmp_path: Path) -> None:
    """MPEG streams that were glued together do that; the first minute must not set the speed of the second."""
    parts = []
    pcm = read(bundled("en-01.flac").path)
    for name, rate, layout in (("a.mp3", 44_100, "stereo"), ("b.mp3", 22_050, "mono"), ("c.mp3", 48_000, "stereo")):
        parts.append(encode_as(pcm, tmp_path / name, "libmp3lame", rate, layout).read_bytes())
    glued = tmp_path / "glued.mp3"
    glued.write_bytes(b"".join(parts))
    samples, _damage = heard(glued)
    assert samples / SAMPLE_RATE == pytest.approx(3 * bundled("en-01.flac").seconds, abs=0.4)


@pytest.mark.parametrize("shape", ["flac", "mp3", "vorbis.ogg", "opus.ogg", "m4a", "webm"])
def test_damage_in_the_middle_is_seen_and_later_times_stay_right(tmp_path: Path, shape: str) -> None:
    pcm = np.concatenate([read(bundled(NAME).path)] * 3)
    whole = encode(pcm, tmp_path / f"whole.{shape}", shape)
    data = bytearray(whole.read_bytes())
    middle = len(data) // 2
    rng = np.random.default_rng(1)
    length = min(6000, len(data) // 10)
    data[middle : middle + length] = rng.bytes(length)
    damaged = tmp_path / f"damaged.{shape}"
    damaged.write_bytes(data)
    samples, damage = heard(damaged)
    assert damage.found
    assert samples == pytest.approx(len(pcm), abs=0.5 * SAMPLE_RATE)


@pytest.mark.parametrize("shape", ["wav", "48k.wav", "flac", "vorbis.ogg", "opus.ogg", "m4a", "webm", "mp3"])
def test_a_recording_cut_at_half_is_truncated_where_the_container_tells(tmp_path: Path, shape: str) -> None:
    whole = encode(np.concatenate([read(bundled(NAME).path)] * 3), tmp_path / f"whole.{shape}", shape)
    half = tmp_path / f"half.{shape}"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    if shape == "m4a":  # its index is at the end: nothing can be read without it
        assert refused(half) is ErrorClass.NOT_AUDIO
        return
    samples, damage = heard(half)
    seconds = 3 * bundled(NAME).seconds
    assert samples / SAMPLE_RATE == pytest.approx(seconds / 2, rel=0.15)
    if not shape.endswith("ogg"):  # Ogg knows its length from its last page only
        assert damage.missing_seconds + samples / SAMPLE_RATE == pytest.approx(seconds, rel=0.03)


CONTAINERS = {  # name: muxer, codec, rate, options
    "wav": ("wav", "pcm_s16le", 16_000, {}),
    "rf64": ("wav", "pcm_s16le", 16_000, {"rf64": "always"}),
    "w64": ("w64", "pcm_s16le", 16_000, {}),
    "aiff": ("aiff", "pcm_s16be", 16_000, {}),
    "caf": ("caf", "pcm_s16le", 16_000, {}),
    "au": ("au", "pcm_s16be", 16_000, {}),
    "voc": ("voc", "pcm_s16le", 16_000, {}),
    "flac": ("flac", "flac", 16_000, {}),
    "tta": ("tta", "tta", 16_000, {}),
    "wv": ("wv", "wavpack", 16_000, {}),
    "mp3": ("mp3", "libmp3lame", 44_100, {}),
    "m4a": ("ipod", "aac", 44_100, {"movflags": "+faststart"}),
    "fmp4": ("mp4", "aac", 44_100, {"movflags": "+frag_keyframe+empty_moov", "frag_duration": "1000000"}),
    "mka": ("matroska", "libopus", 48_000, {}),
    "webm": ("webm", "libopus", 48_000, {}),
    "opus": ("ogg", "libopus", 48_000, {}),
    "aac": ("adts", "aac", 44_100, {}),
    "flv": ("flv", "libmp3lame", 44_100, {}),
    "avi": ("avi", "libmp3lame", 44_100, {}),
    "ts": ("mpegts", "mp2", 44_100, {}),
}


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("kept", [0.5, 0.985])
def test_no_cut_is_silent(tmp_path: Path, name: str, kept: float) -> None:
    muxer, codec, rate, options = CONTAINERS[name]
    whole = tmp_path / "whole"
    noise = np.random.default_rng(1).normal(0, 3000, 16_000).astype(np.int16)
    with av.open(str(whole), "w", format=muxer, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        for second in range(60):
            frame = av.AudioFrame.from_ndarray(noise[None, :], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, second * 16_000, Fraction(1, 16_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert heard(whole)[1] == Damage()
    cut = tmp_path / "cut"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * kept) | 1])  # no whole packet of MPEG-TS
    assert heard(cut)[1].found


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 10_000,
        np.random.default_rng(0).bytes(100_000),
        b"<!DOCTYPE html><html><body>404</body></html>" * 50,
        b'{"error": "not found"}',
        b"RIFF",
        b"ID3\x04\0\0\0\0\0\0",
    ],
)
def test_what_is_no_audio_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(content)
    assert refused(path) is ErrorClass.NOT_AUDIO


@pytest.mark.parametrize("name", ["picture.png", "picture.jpg", "picture.gif", "film.mp4", "film.avi", "film.webm"])
def test_pictures_and_silent_films_have_no_audio(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    codec = {".png": "png", ".jpg": "mjpeg", ".gif": "gif", ".webm": "libvpx"}.get(path.suffix, "mpeg4")
    with av.open(str(path), "w", format="image2" if codec in ("png", "mjpeg") else None) as container:
        stream = container.add_stream(codec, rate=5)
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = 64
        stream.pix_fmt = {"png": "rgb24", "mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
        for shade in [0] if name.startswith("picture") else range(0, 250, 50):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), shade, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert refused(path) is ErrorClass.NO_AUDIO


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n"
SESSION = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
CONCAT = "ffconcat version 1.0\nfile '{target}'\n"
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><BaseURL>{target}</BaseURL></Period></MPD>'
)


@pytest.mark.parametrize("content", [PLAYLIST, SESSION, CONCAT], ids=["m3u8", "sdp", "ffconcat"])
@pytest.mark.parametrize("name", ["sound.m3u8", "sound.sdp", "sound.wav", "sound"])
def test_formats_that_open_other_files_are_forbidden_whatever_their_name(
    tmp_path: Path, content: str, name: str
) -> None:
    path = tmp_path / name
    path.write_text(content.format(target=bundled(NAME).path))
    assert refused(path) is ErrorClass.FORMAT_FORBIDDEN


@pytest.mark.parametrize("target", ["http://127.0.0.1:9/a.wav", "/etc/passwd", "file:///etc/passwd"])
def test_no_manifest_leads_anywhere(tmp_path: Path, target: str) -> None:
    path = tmp_path / "sound.wav"
    path.write_text(DASH.format(target=target))
    assert refused(path) in (ErrorClass.FORMAT_FORBIDDEN, ErrorClass.NOT_AUDIO)


@pytest.mark.parametrize(("rate", "channels"), [(1, 1), (3_999, 1), (384_001, 1), (16_000, 9), (16_000, 64)])
def test_rates_and_channels_that_nobody_speaks_are_refused(tmp_path: Path, rate: int, channels: int) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(wav_header(32_000, rate=rate, channels=channels) + bytes(32_000))
    assert refused(path) is ErrorClass.BAD_PARAMS


def test_other_bounds_may_be_set(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(wav_header(32_000, rate=8_000, channels=2) + bytes(32_000))
    for narrow in (
        Accepted(60, min_sample_rate=8_001),
        Accepted(60, max_sample_rate=7_999),
        Accepted(60, max_channels=1),
    ):
        with pytest.raises(JobError) as caught:
            PcmReader(path, narrow)
        assert caught.value.error_class is ErrorClass.BAD_PARAMS
    assert heard(path)[0] == 16_000


@pytest.mark.parametrize("tag", [0x0270, 0x0130, 0xABCD], ids=["ATRAC3", "SIPR", "unknown"])
def test_codecs_that_nobody_records_with_are_not_tried(tmp_path: Path, tag: int) -> None:
    header = bytearray(wav_header(32_000))
    header[20:22] = tag.to_bytes(2, "little")
    path = tmp_path / "sound.wav"
    path.write_bytes(header + bytes(32_000))
    assert refused(path) is ErrorClass.BAD_PARAMS


def test_every_codec_of_the_list_is_one_that_decodes_audio() -> None:
    known = [name for name in CODECS.split(",") if name in av.codecs_available]
    assert len(known) > 70
    assert {av.Codec(name, "r").type for name in known} == {"audio"}


def test_the_picture_of_a_film_is_never_decoded(tmp_path: Path) -> None:
    """FFmpeg decodes some of every stream to find out what it is, unless it is told not to."""
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=5)
        sound = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        assert isinstance(picture, av.VideoStream)
        assert isinstance(sound, av.AudioStream)
        picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        for shade in range(0, 250, 50):
            film = av.VideoFrame.from_ndarray(np.full((64, 64, 3), shade, np.uint8), format="rgb24")
            container.mux(picture.encode(film))
        frame = av.AudioFrame.from_ndarray(read(bundled(NAME).path)[None, :], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux([*picture.encode(None), *sound.encode(frame), *sound.encode(None)])
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    with av.logging.Capture() as said, PcmReader(path, Accepted(60)):
        av.logging.set_level(level)
    assert any("not on whitelist" in message for _level, _name, message in said)
    assert heard(path)[0] == pytest.approx(len(read(bundled(NAME).path)), abs=10)


def test_a_file_that_we_may_not_read_is_no_fault_of_the_recording(tmp_path: Path) -> None:
    """A decoder is locked in, and may have too many files open."""
    path = encode(silence(1), tmp_path / "one.wav")
    with path.open("rb") as file:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (file.fileno() + 1, limits[1]))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                heard(path)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("name", ["cut.mka", "cut.webm"])
def test_a_header_that_is_cut_anywhere_is_the_recordings_fault(tmp_path: Path, name: str) -> None:
    """FFmpeg calls that an input/output error, as it calls those of a disk."""
    whole = encode_as(silence(0.1), tmp_path / name, "libopus", 48_000, "mono").read_bytes()
    assert len(whole) < 2000
    path = tmp_path / "sound"
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        try:
            heard(path)
        except JobError as error:
            assert error.error_class in (ErrorClass.NOT_AUDIO, ErrorClass.NO_AUDIO, ErrorClass.BAD_PARAMS)  # noqa: PT017


def test_a_recording_may_be_as_long_as_allowed_and_no_longer(tmp_path: Path) -> None:
    path = encode(silence(10), tmp_path / "ten.wav")
    assert heard(path, max_seconds=10)[0] == 10 * SAMPLE_RATE
    assert refused(path, max_seconds=9.9) is ErrorClass.TOO_LONG


def test_a_stream_of_unknown_length_is_read_to_its_end(tmp_path: Path) -> None:
    """What a pipe writes: the header says 4 GB."""
    path = tmp_path / "pipe.wav"
    path.write_bytes(wav_header(0xFFFFFFFF - 36) + bytes(2 * SAMPLE_RATE * 5))
    samples, _damage = heard(path)
    assert samples == 5 * SAMPLE_RATE


@pytest.mark.parametrize("channels", range(1, 9))
def test_any_number_of_channels_up_to_eight_is_mixed(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "sound.wav"
    pcm = np.repeat(read(bundled("en-01.flac").path)[:, None], channels, axis=1)
    path.write_bytes(wav_header(pcm.nbytes, channels=channels) + pcm.tobytes())
    samples, damage = heard(path)
    assert (samples, damage) == (len(pcm), Damage())
    assert np.abs(read(path)).max() > 1000


def test_a_hole_in_the_timestamps_is_filled_with_silence(tmp_path: Path) -> None:
    """A recorder that lost three seconds of its stream: what comes after keeps its time."""
    pcm = read(bundled("en-01.flac").path)
    path = tmp_path / "hole.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono")
        assert isinstance(stream, av.AudioStream)
        written = 0
        for part in range(2):
            for first in range(0, len(pcm), 4096):
                frame = av.AudioFrame.from_ndarray(pcm[None, first : first + 4096], format="s16", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, written, Fraction(1, SAMPLE_RATE)
                written += frame.samples
                container.mux(stream.encode(frame))
            written += 3 * SAMPLE_RATE * (1 - part)
        container.mux(stream.encode(None))
    samples, damage = heard(path)
    assert damage.missing_seconds == pytest.approx(3, abs=0.15)
    assert samples / SAMPLE_RATE == pytest.approx(2 * len(pcm) / SAMPLE_RATE + 3, abs=0.15)
    second = read(path)[-len(pcm) :]
    assert np.abs(second.astype(int) - pcm).max() < 2000


def test_a_header_gone_mad_on_the_way_is_damage_and_no_crash(tmp_path: Path) -> None:
    """AAC frames that claim 47 channels, and whatever else random bytes may claim."""
    pcm = read(bundled("en-01.flac").path)
    rng = np.random.default_rng(5)
    decoded = 0
    for shape in ("m4a", "mp3", "flac", "vorbis.ogg"):
        data = encode(pcm, tmp_path / f"sound.{shape}", shape).read_bytes()
        for _ in range(15):
            damaged = np.frombuffer(data, np.uint8).copy()
            damaged[rng.integers(0, len(data), 10)] = rng.integers(0, 256, 10)
            path = tmp_path / f"damaged.{shape}"
            path.write_bytes(damaged.tobytes())
            try:
                heard(path)
            except JobError:
                continue
            decoded += 1
    assert decoded > 30  # most of them still hold something to hear
