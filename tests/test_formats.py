from __future__ import annotations

import json
from typing import get_args

import pytest

from v2td.config import Format
from v2td.formats import FORMATS, Document
from v2td.jobs import Segment, Word


def segment(
    start: float, end: float, text: str, *, channel: int | None = None, words: tuple[Word, ...] | None = None
) -> Segment:
    return Segment(start, end, text, -0.25, 0.5, 1.5, 0.0, words, channel)


DOCUMENT = Document(
    (
        segment(0.0, 2.0004, " Hello there."),
        segment(61.5, 3599.9996, " a --> b\tc"),
        segment(3661.25, 360_000.0, " Xin chào\n\nbạn ", words=(Word(3661.25, 3662.0, " Xin", 0.75),)),
    ),
    language="en",
    duration_seconds=360_001.5,
    model="demo",
)
EMPTY = Document((), None, 0.0, "demo")


def test_the_formats_are_those_a_message_may_name() -> None:
    assert tuple(FORMATS) == get_args(Format)


TXT = "Hello there.\na --> b\tc\nXin chào  bạn\n"

SRT = """\
1
00:00:00,000 --> 00:00:02,000
Hello there.

2
00:01:01,500 --> 01:00:00,000
a -> b\tc

3
01:01:01,250 --> 100:00:00,000
Xin chào  bạn

"""

VTT = """\
WEBVTT

00:00.000 --> 00:02.000
Hello there.

01:01.500 --> 01:00:00.000
a -> b\tc

01:01:01.250 --> 100:00:00.000
Xin chào  bạn

"""

TSV = """\
start\tend\ttext
0\t2000\tHello there.
61500\t3600000\ta --> b c
3661250\t360000000\tXin chào  bạn
"""


MD = """\
---
language: "en"
duration: 360001.5
model: "demo"
---

**00:00.000** Hello there.

**01:01.500** a --\\> b\tc

**01:01:01.250** Xin chào  bạn
"""


@pytest.mark.parametrize(("name", "expected"), [("txt", TXT), ("srt", SRT), ("vtt", VTT), ("tsv", TSV), ("md", MD)])
def test_known_outputs(name: str, expected: str) -> None:
    assert FORMATS[name](DOCUMENT) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("txt", ""), ("srt", ""), ("vtt", "WEBVTT\n\n"), ("tsv", "start\tend\ttext\n")]
)
def test_nothing_said(name: str, expected: str) -> None:
    assert FORMATS[name](EMPTY) == expected


def test_markdown_is_text_whatever_was_said() -> None:
    hostile = Document((segment(0.0, 1.0, "<script>*a*_b_`c`[d](javascript:e)\\|~&lt;"),), None, 1.0, 'a"\n---\nb: c')
    assert FORMATS["md"](hostile) == (
        '---\nlanguage: null\nduration: 1.0\nmodel: "a\\"\\n---\\nb: c"\n---\n\n'
        "**00:00.000** \\<script\\>\\*a\\*\\_b\\_\\`c\\`\\[d\\](javascript:e)\\\\\\|\\~\\&lt;\n"
    )


def test_json_says_everything() -> None:
    written = FORMATS["json"](DOCUMENT)
    assert "chào" in written
    content = json.loads(written)
    assert {key: content[key] for key in ("text", "language", "duration", "model")} == {
        "text": "Hello there. a --> b\tc Xin chào  bạn",
        "language": "en",
        "duration": 360_001.5,
        "model": "demo",
    }
    first, second, third = content["segments"]
    assert first == {
        "id": 0,
        "start": 0.0,
        "end": 2.0004,
        "text": " Hello there.",
        "temperature": 0.0,
        "avg_logprob": -0.25,
        "compression_ratio": 1.5,
        "no_speech_prob": 0.5,
    }
    assert "channel" not in second
    assert third["words"] == [{"word": " Xin", "start": 3661.25, "end": 3662.0, "probability": 0.75}]
    assert json.loads(FORMATS["json"](EMPTY)) == {
        "text": "",
        "language": None,
        "duration": 0.0,
        "model": "demo",
        "segments": [],
    }


CALL = Document((segment(0.0, 2.0, " Hello?", channel=0), segment(1.5, 3.0, " Yes.", channel=1)), "en", 3.0, "demo")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("txt", "Hello?\nYes.\n"),
        (
            "srt",
            (
                "1\n00:00:00,000 --> 00:00:02,000\n[channel 0] Hello?\n\n"
                "2\n00:00:01,500 --> 00:00:03,000\n[channel 1] Yes.\n\n"
            ),
        ),
        (
            "vtt",
            "WEBVTT\n\n00:00.000 --> 00:02.000\n<v Channel 0>Hello?\n\n00:01.500 --> 00:03.000\n<v Channel 1>Yes.\n\n",
        ),
        (
            "md",
            (
                '---\nlanguage: "en"\nduration: 3.0\nmodel: "demo"\n---\n\n'
                "**00:00.000 channel 0** Hello?\n\n**00:01.500 channel 1** Yes.\n"
            ),
        ),
        ("tsv", "start\tend\ttext\tchannel\n0\t2000\tHello?\t0\n1500\t3000\tYes.\t1\n"),
    ],
)
def test_who_spoke_where_the_channels_were_split(name: str, expected: str) -> None:
    assert FORMATS[name](CALL) == expected


@pytest.mark.parametrize("document", [DOCUMENT, EMPTY, CALL])
def test_json_is_what_one_call_would_have_written(document: Document) -> None:
    written = FORMATS["json"](document)
    assert written == json.dumps(json.loads(written), ensure_ascii=False) + "\n"


def test_json_says_who_spoke() -> None:
    assert [each["channel"] for each in json.loads(FORMATS["json"](CALL))["segments"]] == [0, 1]
