"""Reading rules: examples to look at, and properties that hold whatever was said."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from v2td.formats import Document
from v2td.jobs import Segment, Word
from v2td.subtitles import Cue, Rules, cues, srt, vtt
from v2td.subtitles.cues import GAP_SECONDS, SHORTEST_SECONDS

RULES = Rules()
LONG = (
    "Good morning, everybody. Today we shall talk about the trains, which were late again, and about those who "
    "had to wait for them in the rain."
)


def segment(
    start: float, end: float, text: str, words: tuple[Word, ...] | None = None, channel: int | None = None
) -> Segment:
    return Segment(start, end, text, -0.2, 0.0, 1.0, 0.0, words, channel)


def spoken(text: str, at: float, seconds: float = 0.4) -> tuple[Word, ...]:
    """Words of the same length, as faster-whisper gives them."""
    pieces = text.split()
    return tuple(
        Word(at + number * seconds, at + (number + 1) * seconds, f" {piece}", 0.9)
        for number, piece in enumerate(pieces)
    )


def lines(found: list[Cue]) -> list[tuple[str, ...]]:
    return [cue.lines for cue in found]


def test_a_short_segment_is_one_cue_that_can_be_read() -> None:
    assert cues([segment(1.0, 1.2, " Yes. ")], RULES) == [Cue(1.0, 1.833, ("Yes.",))]
    (cue,) = cues([segment(1.0, 2.0, "Forty characters in only a single second")], RULES)
    assert (cue.start, cue.end) == (1.0, 3.0), "20 characters a second"


def test_a_long_one_is_split_where_sentences_end_and_its_lines_are_even() -> None:
    assert lines(cues([segment(0.0, 10.0, LONG)], RULES)) == [
        ("Good morning, everybody.",),
        ("Today we shall talk about the trains,", "which were late again,"),
        ("and about those who had to", "wait for them in the rain."),
    ]


def test_words_say_when_the_parts_were_spoken() -> None:
    words = spoken(LONG, 10.0)
    found = cues([segment(10.0, words[-1].end, LONG, words)], RULES)
    starts = [cue.start for cue in found]
    assert starts == [10.0, words[3].start, words[14].start], "not where their share of the characters would put them"
    assert found[1].lines[0].startswith("Today")
    assert found[2].lines[0].startswith("and about")


def test_a_pause_in_the_words_is_no_reason_to_show_a_cue_for_ever() -> None:
    words = (Word(0.0, 0.5, " Wait", 0.9), Word(30.0, 30.5, " here.", 0.9))
    assert cues([segment(0.0, 30.5, "Wait here.", words)], RULES) == [
        Cue(0.0, 0.833, ("Wait",)),
        Cue(30.0, 30.833, ("here.",)),
    ]
    (cue,) = cues([segment(0.0, 30.0, "Wait here.")], RULES)
    assert cue.end == RULES.max_seconds


def test_words_that_are_not_the_text_are_not_used() -> None:
    assert cues([segment(0.0, 2.0, "Good morning", spoken("something else", 1.0))], RULES)[0].start == 0.0


def test_what_flashes_by_is_put_together() -> None:
    found = cues([segment(0.0, 0.3, "No."), segment(0.3, 0.6, "No,"), segment(0.6, 2.0, "not now.")], RULES)
    assert found == [Cue(0.0, 2.0, ("No. No, not now.",))]


def test_scripts_without_spaces_have_shorter_lines_and_no_mark_begins_one() -> None:
    text = "今日の天気は晴れです。明日は雨が降るでしょう。だから傘を持って行ってください。"
    found = cues([segment(0.0, 8.0, text)], RULES, "ja")
    assert "".join("".join(cue.lines) for cue in found) == text
    assert all(cell_len(line) <= 26 for cue in found for line in cue.lines)
    assert not any(line[0] in "。、ー" for cue in found for line in cue.lines)


def test_combining_characters_take_no_room() -> None:
    text = "xin cha\u0300o " * 8  # 80 columns, 88 characters
    (cue,) = cues([segment(0.0, 6.0, text)], RULES, "vi")
    assert len(cue.lines) == 2


CALL = [
    segment(0.0, 4.0, "How can I help you today?", channel=0),
    segment(3.0, 5.0, "My train was late.", channel=1),
    segment(3.2, 3.6, "Yes?", channel=0),
]


def test_speakers_overlap_only_where_the_format_takes_it() -> None:
    document = Document(tuple(CALL), "en", 5.0, "demo")
    assert vtt(document) == (
        "WEBVTT\n\n00:00.000 --> 00:03.116\n<v Channel 0>How can I help you today?\n\n"
        "00:03.000 --> 00:05.000\n<v Channel 1>My train was late.\n\n"
        "00:03.200 --> 00:04.033\n<v Channel 0>Yes?\n\n"
    )
    text = srt(document)
    assert "[channel 0] How can I help you today?" in text
    assert "[channel 1] My train was late." in text
    single = cues(CALL, RULES)
    assert all(after.start >= before.end for before, after in pairwise(single))


def test_nothing_said_becomes_markup_or_a_cue() -> None:
    hostile = "</v><b>bold</b>\n\n9\n00:00:00,000 --> 00:00:09,000\nfake &amp;"
    document = Document((segment(0.0, 5.0, hostile),), None, 5.0, "demo")
    assert srt(document).count("-->") == srt(document).count("\n\n") == 1
    told = vtt(document)
    assert told.count("-->") == 1
    assert "<" not in told
    assert "&amp;amp;" in told
    assert srt(Document((segment(0.0, 1.0, " \n "),), None, 1.0, "demo")) == ""


SAID = st.text(st.sampled_from("abc ABC.,?!…  -1'\n\t日本。語、ーñ\u0300ก\u0e34ข😀\u200b—«»("), max_size=160)
TIMES = st.integers(0, 4000).map(lambda hundredths: hundredths / 100)


@st.composite
def segments(draw: st.DrawFn) -> list[Segment]:
    found = []
    for _ in range(draw(st.integers(0, 6))):
        text, start, length = draw(SAID), draw(TIMES), draw(TIMES) / 2
        words = None
        if draw(st.booleans()):
            pieces = [f" {piece}" for piece in text.split()]
            marks = sorted(draw(st.lists(st.floats(0.0, 1.0), min_size=2 * len(pieces), max_size=2 * len(pieces))))
            words = tuple(
                Word(start + length * marks[2 * n], start + length * marks[2 * n + 1], piece, 0.5)
                for n, piece in enumerate(pieces)
            )
        found.append(segment(start, start + length, text, words, draw(st.sampled_from([None, None, 0, 1]))))
    return sorted(found, key=lambda each: each.start)


def bare(text: str) -> str:
    return "".join(text.split())


@given(segments(), st.sampled_from([None, "en", "ja", "th"]), st.sampled_from([RULES, Rules(20, 1), Rules(30, 3, 1.0)]))
def test_whatever_is_said_the_rules_hold(said: list[Segment], language: str | None, rules: Rules) -> None:
    columns = min(rules.max_line, {"ja": 26, "th": 35}.get(language or "", rules.max_line))
    for channel in (None, 0, 1):
        track = [each for each in said if each.channel == channel]
        found = cues(track, rules, language, overlapping=True)
        assert bare("".join("".join(cue.lines) for cue in found)) == bare("".join(each.text for each in track))
        for cue in found:
            assert 1 <= len(cue.lines) <= rules.max_lines
            assert all(line.strip() and cell_len(line) <= columns for line in cue.lines)
            assert SHORTEST_SECONDS - 1e-6 <= cue.end - cue.start <= rules.max_seconds + 1e-6
        for before, after in pairwise(found):
            assert after.start - before.end >= GAP_SECONDS - 1e-6
        for cue, following in zip(found, [*found[1:], None], strict=False):
            room = float("inf") if following is None else following.start - GAP_SECONDS - cue.start
            assert cue.end - cue.start >= min(rules.min_seconds, room) - 1e-6
            reading = sum(map(cell_len, cue.lines)) / rules.max_rate
            assert cue.end - cue.start >= min(reading, rules.max_seconds, room) - 1e-6
    together = cues(said, rules, language)
    assert all(after.start - before.end >= GAP_SECONDS - 1e-6 for before, after in pairwise(together))
    assert all(cell_len(line) <= columns for cue in together for line in cue.lines)


@given(st.lists(st.tuples(st.text("abc ,.", min_size=1, max_size=20), st.floats(1.0, 7.0), st.floats(0.1, 3.0))))
def test_what_does_not_crowd_is_shown_when_it_is_said(said: list[tuple[str, float, float]]) -> None:
    at, track = 0.0, []
    for text, seconds, pause in said:
        track.append(segment(at, at + seconds, f"x{text}"))
        at += seconds + pause
    found = cues(track, RULES)
    assert [cue.start for cue in found] == [each.start for each in track]
    assert all(cue.end >= each.end - 1e-6 for cue, each in zip(found, track, strict=True))
