"""Keys of files: readable where values allow it, and never another value's or another folder's."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.outputs.conftest import transcript
from v2td.config import OutputSettings
from v2td.outputs.keys import MAX_KEY_BYTES, NOTHING, beside, cleaned, filled, source_object

ALL = "{date}/{tenant}/{bucket}/{topic}-{partition}-{offset}/{language}/{job_id}/{path}/{stem}-{id}"


def test_every_field_has_its_value() -> None:
    heard = transcript(url="s3://calls/2026/05/Übergabe 1.final.wav", job_id="call-4711", tenant="acme")
    assert filled(ALL, heard, heard.job.audio_url) == (
        "2026-09-21/acme/calls/v2td-jobs-3-4711/vi/call-4711/2026/05/Übergabe 1.final/Übergabe 1.final-"
        + str(heard.job.id)
    )


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://user:pw@media.example.com/a/b%20c.mp3?token=secret#part", "a/b c"),
        ("http://media.example.com", NOTHING),
        ("http://media.example.com/", NOTHING),
        ("file:///srv/calls/one.wav", "srv/calls/one"),
        ("s3://calls/one.wav?versionId=2", "one"),  # ? is an ordinary character of a key
        ("s3://calls/.hidden", ".hidden"),
        ("S3://calls/x", "x"),
    ],
)
def test_path_of_a_recording(url: str, path: str) -> None:
    assert filled("{path}", transcript(url=url), url) == path


def test_what_is_not_there_has_a_place() -> None:
    heard = transcript(url="https://media.example.com/one.wav")
    assert filled("{tenant}/{bucket}/{job_id}/{stem}", heard, heard.job.audio_url) == "_/_/_/one"


@pytest.mark.parametrize("stamp", [-1, 0, 10**15, 2**62])
def test_any_record_time_is_a_date(stamp: int) -> None:
    heard = transcript(timestamp_ms=stamp)
    date = filled("{date}", heard, heard.job.audio_url)
    assert date == {-1: "1970-01-01", 0: "1970-01-01"}.get(stamp, "9999-12-31")


@pytest.mark.parametrize("value", ["plain", "Übergabe 1", "cuộc gọi", "a=b,c(1)@x+y_z.wav", "会議", "...x"])
def test_plain_values_stay_as_they_are(value: str) -> None:
    assert cleaned(value) == value


@given(st.text(), st.text())
@example("a/b", "a_b")
@example("..", "_")
@example("", "_")
@example("x" * 500, "x" * 501)
@example("a_b~" + "0" * 16, "a/b")
def test_values_keep_apart_and_stay_one_part(one: str, other: str) -> None:
    for each in map(cleaned, (one, other)):
        assert "/" not in each
        assert each not in ("", ".", "..")
        assert each.isprintable()
        assert len(each.encode()) <= 180
    if one != other:
        assert cleaned(one) != cleaned(other)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=3000))
def test_no_path_leaves_its_place_or_the_limit(path: str) -> None:
    url = f"s3://calls/{path or 'x'}"
    key = filled("t/{path}-{id}", transcript(url=url), url)
    assert key.startswith("t/")
    assert not {"", ".", ".."} & set(key.split("/"))
    assert len(key.encode()) + len(".json") <= MAX_KEY_BYTES


def test_source_objects() -> None:
    assert source_object("s3://calls/a/b c?d#e.wav") == ("calls", "a/b c?d#e.wav")
    assert source_object("s3://calls/") is None
    assert source_object("https://calls/a") is None


@pytest.mark.parametrize(
    ("key", "stem"),
    [("a/talk.wav", "a/talk"), ("talk", "talk"), ("a.b/talk", "a.b/talk"), ("a/.hid", "a/.hid"), ("x/..", "x/..")],
)
def test_beside_is_where_players_look(key: str, stem: str) -> None:
    assert beside(key) == stem


@pytest.mark.parametrize(
    "template", ["{nope}", "{id!r}", "{id:>9}", "{id", "{}", "{0}", "{id.hex}", "{id[0]}", "/a", "a//b", "../{id}", ""]
)
def test_templates_that_cannot_be_filled_are_refused_at_load(template: str) -> None:
    with pytest.raises(ValidationError, match="key"):
        OutputSettings(key=template)


def test_templates_may_hold_braces() -> None:
    heard = transcript()
    assert filled(OutputSettings(key="{{{topic}}}").key, heard, heard.job.audio_url) == "{v2td-jobs}"
