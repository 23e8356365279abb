"""What an API like OpenAI's answers: a transcript, or why there is none (pure).

The API is another's machine: whatever it says is read as text and numbers within bounds, and nonsense is its failure.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from v2td.clock import fit
from v2td.config.languages import LANGUAGES, NAMES
from v2td.errors import JobError, ProviderFailedError, ProviderRefusedError
from v2td.jobs import SAMPLE_RATE, Segment, Span, Word
from v2td.retry import retry_after_seconds

MAX_SEGMENTS = 20_000
MAX_WORDS = 100_000
MAX_SAID = 200  # characters of an API's own words in a reason

_CODES = {name: code for code, name in NAMES.items()}
_REFUSED = frozenset({400, 413, 415, 422})
_HINTS = {
    401: "it does not accept api_key",
    402: "it wants to be paid",
    403: "it does not let api_key do this",
    404: "it knows no such path or model: see base_url and model",
    405: "it takes no POST there: see base_url",
}
_BUSY = 429
_QUOTA = "insufficient_quota"  # which comes as busy, too

Number = Annotated[float, Field(allow_inf_nan=False)]


class _Lax(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class _Word(_Lax):
    word: str
    start: Number
    end: Number
    probability: Number | None = None


class _Segment(_Lax):
    text: str
    start: Number
    end: Number
    avg_logprob: Number | None = None
    no_speech_prob: Number | None = None
    compression_ratio: Number | None = None
    temperature: Number | None = None
    words: Annotated[list[_Word], Field(max_length=MAX_WORDS)] | None = None


class _Answer(_Lax):
    text: str
    language: str | None = None
    segments: Annotated[list[_Segment], Field(max_length=MAX_SEGMENTS)] | None = None
    words: Annotated[list[_Word], Field(max_length=MAX_WORDS)] | None = None


class BusyError(ProviderFailedError):
    """The API takes no more for now, of us or of anybody: nothing is wrong with it, or with what was sent."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What was asked about: samples [start, end) of a channel, and where in them the VAD heard speech."""

    start: int
    end: int
    speech: tuple[Span, ...]
    channel: int | None
    words: bool  # whether their times were asked for


@dataclass(frozen=True, slots=True)
class Said:
    """What an API heard; times in seconds of the recording."""

    segments: tuple[Segment, ...]
    language: str | None


def read(content: bytes, sent: Sent) -> Said:
    """Return what an answer's body says; raises ProviderFailedError when it makes no sense.

    ProviderRefusedError when it has no words, and they were asked for.
    """
    try:
        answer = _Answer.model_validate_json(content)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, found["loc"]))
        reason = f"its answer is not what was asked for: {f'{where}: ' if where else ''}{found['msg']}"
        raise ProviderFailedError(_line(reason)) from None
    segments = answer.segments
    if not segments:  # plain JSON: all that is known is where the speech is
        seconds = (sent.end - sent.start) / SAMPLE_RATE
        segments = [_Segment(text=answer.text, start=0.0, end=seconds)]
    spoken = [each for each in segments if each.text.strip()]
    words = _by_segment(spoken, answer.words or []) if sent.words else [None] * len(spoken)
    if sent.words and not any(words) and any(map(str.isalnum, answer.text)):
        raise ProviderRefusedError("it has no times of words")
    found_segments = (_segment(each, own, sent) for each, own in zip(spoken, words, strict=True))
    return Said(tuple(sorted(found_segments, key=lambda each: each.start)), language_of(answer.language))


def language_of(said: str | None) -> str | None:
    """Return Whisper's code of a language, however an API calls it ("english", "EN", "en-US"); None when unknown."""
    name = (said or "").strip().lower().replace("_", "-")
    code = _CODES.get(name) or name.partition("-")[0]
    return code if code in LANGUAGES else None


def refusal(status: int, body: bytes, retry_after: str | None, now: datetime, key: str) -> JobError:
    """Return the error for any answer but 200: refused is what it will never take, all else may pass.

    `body` is the start of the answer's, whose message is told; never the `key`, whole or in part.
    """
    message, code = _message(body)
    if status in _REFUSED:
        return ProviderRefusedError(_reason(status, message, key))
    if code == _QUOTA:
        message = "the account has no quota left"
    elif status in _HINTS:
        message = _HINTS[status]  # never its own words: OpenAI repeats the ends of a key that it refuses
    kind = BusyError if status == _BUSY and code != _QUOTA else ProviderFailedError
    return kind(_reason(status, message, key), retry_after_seconds(retry_after, now))


def _reason(status: int, message: str, key: str) -> str:
    if key:
        message = message.replace(key, "…")
    return f"the API answered {status}" + (f": {message}" if message else "")


def _message(body: bytes) -> tuple[str, str]:
    """Return the message and the code of an error in OpenAI's shape; empty what it does not have."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    error = content.get("error") if isinstance(content, dict) else None
    if isinstance(error, str):
        return _line(error), ""
    if not isinstance(error, dict):
        return "", ""
    message, code = error.get("message"), error.get("code")
    return _line(message) if isinstance(message, str) else "", code if isinstance(code, str) else ""


def _line(text: str) -> str:
    """Return text as one line of bounded length."""
    line = " ".join(_clean(text).split())
    return line if len(line) <= MAX_SAID else line[: MAX_SAID - 1] + "…"


def _clean(text: str) -> str:
    """Return text that Postgres and UTF-8 can hold: JSON may have NULs, and halves of pairs."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _by_segment(segments: Sequence[_Segment], words: Sequence[_Word]) -> list[list[_Word]]:
    """Return the words of each segment: its own, or those of the answer whose middle lies in it, or is nearest."""
    if not words:
        return [each.words or [] for each in segments]
    found: list[list[_Word]] = [[] for _ in segments]
    order = sorted(range(len(segments)), key=lambda index: segments[index].start)
    at = 0
    for word in sorted(words, key=lambda each: each.start):
        middle = (word.start + word.end) / 2
        while at + 1 < len(order) and segments[order[at]].end <= middle and segments[order[at + 1]].start <= middle:
            at += 1
        if order:
            found[order[at]].append(word)
    return found


def _segment(said: _Segment, words: list[_Word] | None, sent: Sent) -> Segment:
    text = _clean(said.text)
    start, end = _times(said.start, said.end, sent)
    start, end = fit(start, end, sent.speech)
    logprob = said.avg_logprob or 0.0
    sureness = math.exp(min(0.0, logprob))  # of its words, where the API does not say it of each
    return Segment(
        start=start,
        end=end,
        text=text,
        avg_logprob=logprob,
        no_speech_prob=said.no_speech_prob or 0.0,
        compression_ratio=_ratio(text) if said.compression_ratio is None else said.compression_ratio,
        temperature=said.temperature or 0.0,
        words=None if words is None else tuple(_word(each, sureness, start, end, sent) for each in words),
        channel=sent.channel,
    )


def _word(said: _Word, sureness: float, earliest: float, latest: float, sent: Sent) -> Word:
    """Return a word, inside its segment whatever its times are."""
    start, end = _times(said.start, said.end, sent)
    probability = sureness if said.probability is None else min(max(said.probability, 0.0), 1.0)
    return Word(
        start=min(max(start, earliest), latest),
        end=min(max(end, earliest), latest),
        text=_clean(said.word),
        probability=probability,
    )


def _times(start: float, end: float, sent: Sent) -> tuple[float, float]:
    """Put times back to those of the recording, inside what was sent."""
    length = (sent.end - sent.start) / SAMPLE_RATE
    start = min(max(start, 0.0), length)
    end = min(max(end, start), length)
    return sent.start / SAMPLE_RATE + start, sent.start / SAMPLE_RATE + end


def _ratio(text: str) -> float:
    """Return how much a text can be compressed, as Whisper has it: repetitions tell themselves so."""
    content = text.encode()
    return len(content) / len(zlib.compress(content))
