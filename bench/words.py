"""Word error rate, case and punctuation aside (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jiwer

from v2td.demo.verdict import WORDS

# How much worse than the reference a contestant's text may be before its speed counts for nothing. A small sample has
# few words, so one wrong word more or less is allowed in any case.
TOLERATED_RATE = 0.01
TOLERATED_WORDS = 2


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Wrong, missing and added words, of so many spoken."""

    errors: int
    words: int

    @property
    def rate(self) -> float:
        """Errors per word."""
        return self.errors / max(1, self.words)

    def is_worse_than(self, reference: WordErrors) -> bool:
        """Whether this is worse than the reference by more than is tolerated."""
        return self.rate > reference.rate + max(TOLERATED_RATE, TOLERATED_WORDS / max(1, self.words))


def word_errors(spoken: Mapping[str, str], heard: Mapping[str, str]) -> WordErrors:
    """Compare texts by their keys; one that was not heard at all is wrong in every word."""
    pairs = [(text, heard.get(key, "")) for key, text in spoken.items()]
    counted = jiwer.process_words(
        [text for text, _ in pairs],
        [text for _, text in pairs],
        reference_transform=WORDS,
        hypothesis_transform=WORDS,
    )
    return WordErrors(
        errors=counted.substitutions + counted.deletions + counted.insertions,
        words=counted.substitutions + counted.deletions + counted.hits,
    )
