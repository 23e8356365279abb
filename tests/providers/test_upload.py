from pathlib import Path
from threading import Event

import numpy as np
import pytest

from tests.providers.tones import Samples, Tone, hear, sound, write
from v2td.bundled.recordings import recordings
from v2td.jobs import SAMPLE_RATE
from v2td.providers.upload import BLOCK, CONTENT_TYPES, MOST_BYTES, Codec, StoppedError, Stretch, kind_of, pack

CODECS: tuple[Codec, ...] = ("opus", "flac")


def stretch(
    samples: Samples, folder: Path, channel: int | None = None, start: int = 0, end: int | None = None
) -> Stretch:
    path = folder / "recording.pcm"
    samples.tofile(path)
    return Stretch(path, samples.shape[1], channel, start, len(samples) if end is None else end)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    ("first", "last"),
    [(0, 12 * SAMPLE_RATE), (SAMPLE_RATE // 3, BLOCK + 17), (5, 1605), (11 * SAMPLE_RATE, 99 * SAMPLE_RATE)],
    ids=["all", "a part", "a tenth of a second", "beyond the end"],
)
def test_a_stretch_is_as_long_as_it_is(tmp_path: Path, codec: Codec, first: int, last: int) -> None:
    samples = sound([Tone(0.5, 11.5, 440)], 12)
    _tones, seconds = hear(pack(stretch(samples, tmp_path, None, first, last), codec, Event()))
    expected = (min(last, len(samples)) - first) / SAMPLE_RATE
    assert seconds == pytest.approx(expected, abs=0.0201)  # a frame of Opus


@pytest.mark.parametrize("codec", CODECS)
def test_tones_stay_where_they_are(tmp_path: Path, codec: Codec) -> None:
    tones = [Tone(0.5, 1, 440), Tone(4.8, 5.4, 1000), Tone(9, 10, 2000)]  # the second one over the border of blocks
    heard, _seconds = hear(pack(stretch(sound(tones, 12), tmp_path), codec, Event()))
    assert [tone.hertz for tone in heard] == [440, 1000, 2000]
    assert [(tone.start, tone.end) for tone in heard] == [
        pytest.approx((tone.start, tone.end), abs=0.02) for tone in tones
    ]


def test_flac_is_the_very_sound(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(-32768, 32767, (BLOCK + 100, 1)).astype(np.int16)
    import io

    import av

    with av.open(io.BytesIO(pack(stretch(noise, tmp_path), "flac", Event())), "r") as container:
        back = np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])
    assert np.array_equal(back, noise[:, 0])


@pytest.mark.parametrize("codec", CODECS)
def test_no_sound_is_larger_than_is_reckoned_with(tmp_path: Path, codec: Codec) -> None:
    noise = np.random.default_rng(1).integers(-32768, 32767, (20 * SAMPLE_RATE, 1)).astype(np.int16)
    assert len(pack(stretch(noise, tmp_path), codec, Event())) < 20 * MOST_BYTES[codec]


def test_channels_are_told_apart_or_mixed(tmp_path: Path) -> None:
    samples = sound([Tone(0, 1, 440, channel=0), Tone(2, 3, 700, channel=1)], 4, channels=2)
    for channel, expected in ((0, [440]), (1, [700]), (None, [440, 700])):
        tones, _seconds = hear(pack(stretch(samples, tmp_path, channel), "flac", Event()))
        assert [tone.hertz for tone in tones] == expected


def test_nobody_waits_for_what_was_stopped(tmp_path: Path) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(StoppedError):
        pack(stretch(sound([], 1), tmp_path), "flac", stop)


@pytest.mark.parametrize("recording", recordings(), ids=lambda each: each.name)
def test_bundled_recordings_are_of_kinds_that_apis_take(recording: object) -> None:
    path = recording.path  # type: ignore[attr-defined]
    assert kind_of(path) == path.suffix[1:]


@pytest.mark.parametrize(
    ("container", "codec", "kind"),
    [
        ("wav", "pcm_s16le", "wav"),
        ("wav", "pcm_f32le", "wav"),
        ("wav", "pcm_alaw", None),
        ("wav", "adpcm_ms", None),
        ("mp3", "mp3", "mp3"),
        ("adts", "aac", None),
        ("mp2", "mp2", None),
        ("ipod", "aac", "m4a"),
        ("mp4", "aac", "mp4"),
        ("mov", "aac", None),
        ("ogg", "libopus", "ogg"),
        ("flac", "flac", "flac"),
        ("webm", "libopus", "webm"),
        ("matroska", "libopus", None),
        ("aiff", "pcm_s16be", None),
    ],
)
def test_kinds_are_known_by_their_bytes(tmp_path: Path, container: str, codec: str, kind: str | None) -> None:
    samples = sound([Tone(0, 1, 440)], 1, channels=1)
    path = tmp_path / "no suffix"
    write(samples, path, container, codec)
    assert kind_of(path) == kind
    assert kind is None or kind in CONTENT_TYPES


@pytest.mark.parametrize("content", [b"", b"R", b"RIFF", b"OggS" + b"\0" * 24 + b"\x7fFLAC", b"<html>", b"\0" * 5000])
def test_other_bytes_are_no_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert kind_of(path) is None


def test_what_is_in_ogg_decides(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"OggS" + b"\0" * 24 + b"\x01vorbis")
    assert kind_of(path) == "ogg"
