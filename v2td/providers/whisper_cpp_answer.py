"""What whisper.cpp's server says of a window in verbose_json (pure): somebody else's words, bounded and checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from v2td.config.languages import LANGUAGES
from v2td.errors import ProviderFailedError
from v2td.jobs import SAMPLE_RATE, Segment, Word
from v2td.providers.whisper_cpp_worker import LANGUAGES_TOLD, WITHOUT_SPACES, WindowRequest, compression_ratio

BROKEN = "\N{REPLACEMENT CHARACTER}"  # of tokens that are a part of a letter


def likely_languages(answer: Mapping[str, Any], among: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Return the likeliest languages of these, or of all, and how likely each is.

    The server leaves out what is most unlikely: where that is all that may be, it is the first of it.
    """
    found = answer.get("language_probabilities")
    if not isinstance(found, dict):
        raise ProviderFailedError("the server does not tell language_probabilities: it is too old to detect languages")
    known = [(code, _number(found[code], code, least=0)) for code in found if code in LANGUAGES]
    likeliest = sorted(known, key=lambda each: -each[1])
    if among:
        likeliest = [each for each in likeliest if each[0] in among] or [(among[0], 0.0)]
    return tuple(likeliest[:LANGUAGES_TOLD])


def segments_of(answer: Mapping[str, Any], request: WindowRequest) -> tuple[Segment, ...]:
    """Return the segments that have text, with times inside the window."""
    found = answer.get("segments")
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ProviderFailedError("the server answers without segments: it does not know verbose_json")
    texts = [_text(each) for each in found]
    ratio = compression_ratio(" ".join(text.strip() for text in texts))
    return tuple(_segment(each, text, ratio, request) for each, text in zip(found, texts, strict=True) if text.strip())


def _segment(said: Mapping[str, Any], text: str, ratio: float, request: WindowRequest) -> Segment:
    length = request.sound.window.length / SAMPLE_RATE
    start = min(_number(said.get("start"), "start", least=0), length)
    end = min(max(_number(said.get("end"), "end", least=0), start), length)
    logprob = said.get("avg_logprob")  # null when there is nothing to take the mean of
    words = None
    if request.word_timestamps:
        words = tuple(_words(said, text, start, end, spaced=request.language not in WITHOUT_SPACES))
    return Segment(
        start=start,
        end=end,
        text=text,
        avg_logprob=0.0 if logprob is None else _number(logprob, "avg_logprob"),
        no_speech_prob=_number(said.get("no_speech_prob", 0.0), "no_speech_prob"),
        compression_ratio=ratio,
        temperature=_number(said.get("temperature", 0.0), "temperature"),
        words=words,
    )


def _words(said: Mapping[str, Any], text: str, earliest: float, latest: float, *, spaced: bool) -> Iterator[Word]:
    """Yield the words: what the server calls so are tokens, of which one may be a part of a letter."""
    tokens = said.get("words", [])
    if not isinstance(tokens, list) or not all(isinstance(each, dict) for each in tokens):
        raise ProviderFailedError("the server answers with words that are none")
    groups: list[list[Mapping[str, Any]]] = []
    for token in tokens:
        added = _text(token, "word")
        if not groups or (added.startswith(" ") if spaced else _is_whole(added, groups[-1])):
            groups.append([])
        groups[-1].append(token)
    place = 0  # in the segment's text, whose letters are whole
    for index, group in enumerate(groups):
        content = "".join(_text(token, "word") for token in group)
        if BROKEN in content:
            behind = groups[index + 1][0] if index + 1 < len(groups) else None
            found = text.find(_text(behind, "word"), place + 1) if behind else -1
            content = text[place:found] if found >= 0 else text[place:]
        place += len(content)
        start = min(max(_number(group[0].get("start"), "start"), earliest), latest)
        end = min(max(_number(group[-1].get("end"), "end"), start), latest)
        likely = [_number(token.get("probability"), "probability", least=0) for token in group]
        yield Word(start, end, content, sum(likely) / len(likely))


def _is_whole(added: str, group: Sequence[Mapping[str, Any]]) -> bool:
    return BROKEN not in added or BROKEN not in _text(group[-1], "word")


def _text(said: Mapping[str, Any], name: str = "text") -> str:
    text = said.get(name)
    if not isinstance(text, str):
        raise ProviderFailedError(f"the server answers with a {name} that is {type(text).__name__}")
    return text


def _number(value: object, name: str, least: float = -math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < least:
        raise ProviderFailedError(f"the server answers with {name} = {str(value)[:40]}")
    return float(value)
