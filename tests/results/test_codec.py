"""What Redis holds: a text comes back as it was, and whatever else lies there is no text."""

import json
import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.outcomes import segment, transcript
from v2td.jobs import Segment, Word
from v2td.results import Found
from v2td.results.codec import MAX_JSON_BYTES, MAX_PARTS, decode, encode, key_of
from v2td.results.found import of_transcript

AUDIO, ONE, OTHER = "ab" * 32, "01" * 32, "02" * 32

numbers = st.floats(allow_nan=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
words = st.none() | st.lists(st.builds(Word, numbers, numbers, texts, numbers), max_size=3).map(tuple)
channels = st.none() | st.integers(0, 7)
segments = st.builds(Segment, numbers, numbers, texts, numbers, numbers, numbers, numbers, words, channels)
founds = st.builds(
    Found,
    origin=st.none() | st.uuids(),
    audio_sha256=st.just(AUDIO),
    text_sha256=st.just(ONE),
    audio_seconds=numbers,
    speech_seconds=numbers,
    covered_seconds=numbers,
    language=st.none() | texts,
    language_probability=st.none() | numbers,
    segments=st.lists(segments, max_size=4).map(tuple),
    provider=texts,
    model=texts,
    truncated=st.booleans(),
    notes=st.dictionaries(texts, st.none() | st.booleans() | texts | st.lists(texts), max_size=2),
)


def found(*texts: str) -> Found:
    return of_transcript(transcript(1, *texts, text_sha256=ONE))


def encoded(some: Found) -> bytes:
    data = encode(some)
    assert data is not None
    return data


def forged(**changes: object) -> bytes:
    """A value of the right form in which fields are replaced; `...` leaves one out."""
    head, _, packed = encoded(found()).partition(b"\n")
    values = json.loads(zlib.decompress(packed)) | changes
    kept = {name: value for name, value in values.items() if value is not ...}
    return head + b"\n" + zlib.compress(json.dumps(kept).encode())


@given(founds)
def test_a_text_comes_back_as_it_was(some: Found) -> None:
    assert decode(encoded(some), AUDIO, [OTHER, ONE]) == replace(some, level="redis")


@given(st.binary())
def test_anything_is_no_text(data: bytes) -> None:
    head = encoded(found()).partition(b"\n")[0]
    assert decode(data, AUDIO, [ONE]) is None
    assert decode(head + b"\n" + data, AUDIO, [ONE]) is None
    assert decode(head + b"\n" + zlib.compress(data), AUDIO, [ONE]) is None


@given(st.data())
@settings(max_examples=300)
def test_a_value_with_a_damaged_byte_is_no_text_or_the_same(data: st.DataObject) -> None:
    whole = encoded(found())
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    assert decode(damaged, AUDIO, [ONE]) in (None, replace(found(), level="redis"))


@pytest.mark.parametrize(
    "changes",
    [
        {"segments": ...},
        {"segments": None},
        {"segments": [{"start": 1}]},
        {"segments": {}},
        {"audio_seconds": "5"},
        {"origin": "me"},
        {"truncated": 1},
        {"notes": []},
        {"text_sha256": OTHER},
        {"audio_sha256": "cd" * 32},
    ],
    ids=str,
)
def test_json_of_another_form_is_no_text(changes: dict[str, object]) -> None:
    assert decode(forged(), AUDIO, [ONE]) is not None
    assert decode(forged(**changes), AUDIO, [ONE]) is None


def test_a_cut_value_and_one_of_another_version_are_no_text() -> None:
    whole = encoded(found())
    assert decode(whole[:-1], AUDIO, [ONE]) is None
    assert decode(whole.replace(b"result-1", b"result-2", 1), AUDIO, [ONE]) is None


def test_a_bomb_is_not_unpacked() -> None:
    head = encoded(found()).partition(b"\n")[0]
    bomb = head + b"\n" + zlib.compress(b" " * 1_000_000_000)
    assert len(bomb) < 1_100_000
    assert decode(bomb, AUDIO, [ONE]) is None


def test_a_text_of_five_hours_fits_and_one_of_days_is_not_kept() -> None:
    def spoken(count: int) -> Found:
        words = [Word(n * 1.2345, n * 1.2345 + 0.25, " spoken", 0.987654321) for n in range(10)]
        return replace(found(), segments=tuple(segment(" spoken" * 10, words) for _ in range(count // 10)))

    hours = encoded(spoken(5 * 3600 * 2))
    assert decode(hours, AUDIO, [ONE]) is not None
    assert encode(spoken(MAX_PARTS * 2)) is None
    assert encode(found("x" * MAX_JSON_BYTES)) is None


def test_what_json_does_not_take_is_not_kept() -> None:
    assert encode(found("a\ud800")) is None


def test_keys_tell_recordings_and_digests_apart() -> None:
    assert key_of(AUDIO, ONE) == f"v2td:result:{AUDIO}:{ONE}"
