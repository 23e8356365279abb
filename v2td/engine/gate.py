"""Which texts are doubtful (pure): those windows are decoded again, alone, with beams and temperature fallback.

The thresholds are Whisper's own (compression ratio, mean log-probability, no-speech), and two more that catch
what those miss when windows are decoded greedily and together: loops, and speech for which no text came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from statistics import median

from v2td.config import QualitySettings
from v2td.engine.batch import Interval, Said

COMPRESSION = "compression_ratio"  # the text repeats itself, zlib finds
LOGPROB = "logprob"  # the model was not sure
REPETITION = "repetition"  # the same words again and again
COVERAGE = "coverage"  # speech without text
SPARSE = "sparse"  # much speech with little text: a sentence got lost within a segment
DENSE = "dense"  # more text than can be said in so short a time
FALLBACK = "fallback"  # the second decoding needed a higher temperature

MAX_PHRASE = 20  # tokens of a phrase that is looked for again behind itself
MIN_LOOP = 6  # tokens: shorter loops are how people speak
LATELY = 100  # windows that a new one is compared with
FEWEST = 5  # windows, before which a comparison says nothing
SURE = -0.02  # what is surer than this is not compared: rounding decides there
SPARSE_SECONDS = 4.0  # of speech in a segment: shorter ones lose no sentence
SPARSE_RATIO = 0.6  # of the window's median: characters in a second of speech
DENSE_SECONDS = 2.0  # of speech: the ends of shorter segments are too uncertain
DENSE_RATIO = 1.45
RATE_COMPANY = 3  # segments: a median of fewer says nothing


def doubts(
    *,
    avg_logprob: float,
    compression_ratio: float,
    tokens: Sequence[int],
    speech: Sequence[Interval],
    said: Sequence[Said],
    quality: QualitySettings,
) -> tuple[str, ...]:
    """Return the flags of one window's text: `tokens` are its words', `said` in order of start."""
    flags = []
    text = [(start, end) for start, end, _ in said]
    if compression_ratio > quality.compression_ratio_max:
        flags.append(COMPRESSION)
    if text and avg_logprob < quality.doubt_logprob:
        flags.append(LOGPROB)
    if repeats(tokens, quality.repeats_max):
        flags.append(REPETITION)
    if (speech and not text) or longest_gap(speech, text) >= quality.uncovered_seconds:
        flags.append(COVERAGE)
    if any(sparse(said, speech)):
        flags.append(SPARSE)
    if any(dense(said, speech)):
        flags.append(DENSE)
    return tuple(flags)


def sparse(said: Sequence[Said], speech: Sequence[Interval]) -> list[bool]:
    """Tell of each segment whether it has much speech and little text, compared with the others of its window."""
    return [seconds >= SPARSE_SECONDS and rate < SPARSE_RATIO for seconds, rate in _rates(said, speech)]


def dense(said: Sequence[Said], speech: Sequence[Interval]) -> list[bool]:
    """Tell of each segment whether it has more text than can be said in its speech: a small loop."""
    return [seconds >= DENSE_SECONDS and rate > DENSE_RATIO for seconds, rate in _rates(said, speech)]


def _rates(said: Sequence[Said], speech: Sequence[Interval]) -> list[tuple[float, float]]:
    """Return of each segment the seconds of speech, and the text in a second of them ÷ the window's median."""
    heard = [sum(max(0.0, min(end, to) - max(start, since)) for since, to in speech) for start, end, _ in said]
    rates = [len(text.strip()) / max(seconds, 0.1) for (_, _, text), seconds in zip(said, heard, strict=True)]
    if len(said) < RATE_COMPANY:
        return [(0.0, 1.0)] * len(said)
    usual = max(median(rates), 0.1)
    return [(seconds, rate / usual) for seconds, rate in zip(heard, rates, strict=True)]


class Usual:
    """How sure the model usually is: what a mean log-probability is worth differs from model to model."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._lately: deque[float] = deque(maxlen=LATELY)

    def is_exceeded(self, avg_logprob: float) -> bool:
        """Whether a text is `factor` times less sure than the median of those before, the first ones never."""
        enough = len(self._lately) >= FEWEST
        doubtful = enough and avg_logprob < self._factor * min(median(self._lately), SURE)
        self._lately.append(avg_logprob)
        return doubtful


def is_silence(no_speech_prob: float, avg_logprob: float, quality: QualitySettings) -> bool:
    """Whether there is nothing to hear, by Whisper's rule: it says so, and was not sure of the text either."""
    return no_speech_prob > quality.no_speech_min and avg_logprob <= quality.logprob_min


def repeats(tokens: Sequence[int], most: int) -> bool:
    """Whether some phrase stands more than `most` times in a row, and that is more than a stammer."""
    for length in range(1, min(MAX_PHRASE, len(tokens) // 2) + 1):
        equal = 0  # tokens in a row that equal the one a phrase before
        for index in range(length, len(tokens)):
            equal = equal + 1 if tokens[index] == tokens[index - length] else 0
            run = equal + length  # tokens from the first phrase on
            if run >= MIN_LOOP and run > most * length:
                return True
    return False


def uncovered(speech: Iterable[Interval], text: Sequence[Interval]) -> list[Interval]:
    """Return the parts of `speech` that no interval of `text` (in order of start) covers."""
    parts = []
    for start, end in speech:
        edge = start
        for text_start, text_end in text:
            if text_end <= edge:
                continue
            if text_start >= end:
                break
            if text_start > edge:
                parts.append((edge, text_start))
            edge = max(edge, text_end)
        if edge < end:
            parts.append((edge, end))
    return parts


def longest_gap(speech: Iterable[Interval], text: Sequence[Interval]) -> float:
    """Seconds of the longest stretch of speech without text."""
    return max((end - start for start, end in uncovered(speech, text)), default=0.0)
