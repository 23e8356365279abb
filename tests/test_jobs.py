from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from v2td.errors import ErrorClass
from v2td.jobs import (
    MAX_REASON,
    Coordinates,
    Failure,
    Job,
    Options,
    Segment,
    SourceRecord,
    Span,
    Transcript,
    Window,
    options_sha256,
)

COORDINATES = st.builds(
    Coordinates,
    cluster_id=st.text(max_size=30),
    topic=st.text(max_size=30),
    partition=st.integers(0, 2**31),
    offset=st.integers(0, 2**63),
    timestamp_ms=st.integers(-1, 2**48 - 1),
    record_index=st.integers(0, 2**31),
)
AT = Coordinates("cluster", "jobs", 3, 41, 1_700_000_000_000)


@given(COORDINATES)
def test_a_row_id_is_a_uuid_of_version_8_that_begins_with_the_record_time(at: Coordinates) -> None:
    row_id = at.row_id()
    assert row_id.version == 8
    assert row_id.variant == "specified in RFC 4122"
    assert row_id.int >> 80 == max(at.timestamp_ms, 0)
    assert row_id == replace(at).row_id()


@given(COORDINATES, COORDINATES)
def test_different_coordinates_have_different_row_ids(one: Coordinates, other: Coordinates) -> None:
    assert (one.row_id() == other.row_id()) == (one == other)


def test_every_coordinate_takes_part_and_none_runs_into_the_next() -> None:
    others = [
        replace(AT, cluster_id="cluste"),
        replace(AT, cluster_id="clusterj", topic="obs"),
        replace(AT, topic="jobs3", partition=0),
        replace(AT, partition=34, offset=1),
        replace(AT, offset=42),
        replace(AT, timestamp_ms=1_700_000_000_001),  # a recreated topic
        replace(AT, record_index=1),
    ]
    assert len({at.row_id() for at in [AT, *others]}) == len(others) + 1


def test_the_row_id_never_changes() -> None:
    """Rows of an older version must be found by a newer one."""
    assert str(AT.row_id()) == "018bcfe5-6800-875b-8ee4-03c6284d3131"


def test_a_message_cannot_choose_its_row_id() -> None:
    assert Job(AT, "https://example.com/a.wav", job_id="mine").id == AT.row_id()


OPTIONS = st.builds(
    Options,
    language=st.none() | st.sampled_from(["en", "vi"]),
    languages=st.lists(st.sampled_from(["en", "vi", "fr"]), unique=True).map(tuple),
    task=st.sampled_from(["transcribe", "translate"]),
    prompt=st.none() | st.text(max_size=5),
    hotwords=st.none() | st.text(max_size=5),
    beam_size=st.none() | st.integers(1, 16),
    word_timestamps=st.booleans(),
)


@given(OPTIONS, OPTIONS)
def test_two_results_may_be_shared_only_when_everything_that_decides_the_text_is_equal(
    one: Options, other: Options
) -> None:
    same = replace(one, languages=()) == replace(other, languages=()) and set(one.languages) == set(other.languages)
    assert (options_sha256(one, "base") == options_sha256(other, "base")) == same
    assert options_sha256(one, "base") != options_sha256(one, "small")


def transcript(*texts: str, speech: float = 10.0, covered: float = 5.0) -> Transcript:
    segments = tuple(Segment(index, index + 1, text, -0.1, 0.0, 1.0, 0.0) for index, text in enumerate(texts))
    return Transcript(
        Job(AT, "file:///a.wav"), "00", 1, 20.0, speech, covered, "en", 1.0, segments, "local", "demo", False, 1.0, {}
    )


def test_the_text_is_one_line_of_what_the_segments_say() -> None:
    assert transcript(" Hello there.", "", "  ", " Good bye. ").text == "Hello there. Good bye."
    assert transcript().text == ""


def test_coverage_is_a_share_of_the_speech_and_unknown_without_speech() -> None:
    assert transcript().speech_coverage_ratio == 0.5
    assert transcript(covered=10.1).speech_coverage_ratio == 1.0
    assert transcript(speech=0.0, covered=0.0).speech_coverage_ratio is None


def test_lengths_of_a_window_are_those_of_its_spans() -> None:
    window = Window(0, (Span(0, 100), Span(200, 250)), (Span(10, 90), Span(210, 220)))
    assert (window.length, window.speech_length) == (150, 90)


def failure(reason: str) -> Failure:
    return Failure(AT, ErrorClass.BAD_MESSAGE, reason, 1, SourceRecord(None, None, ()))


ANY_TEXT = st.text(st.characters(codec=None))


@given(ANY_TEXT | ANY_TEXT.map(lambda text: text * 2000))
def test_a_reason_is_one_printable_line_and_bounded(reason: str) -> None:
    made = failure(reason)
    assert made.reason.isprintable()
    assert len(made.reason) <= MAX_REASON
    assert replace(made, attempts=2).reason == made.reason


def test_a_reason_says_what_it_had_to_hide() -> None:
    assert failure("không\n\x1b[31m\u202e\0\ud800").reason == r"không\n\x1b[31m\u202e\x00\ud800"
    assert failure("x" * MAX_REASON).reason == "x" * MAX_REASON
    assert failure("x" * 200_000).reason == "x" * (MAX_REASON - 1) + "…"
