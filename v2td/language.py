"""Which language a job is in (pure): a vote of its first windows, weighted by how much speech each holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

LANGUAGE_WINDOWS = 3  # a jingle, a greeting in another language or a bad line must not decide for hours of speech


@dataclass(frozen=True, slots=True)
class Ballot:
    """What one window says: its likeliest languages with their probabilities, and seconds of speech."""

    languages: tuple[tuple[str, float], ...]
    seconds: float


def elect(ballots: Iterable[Ballot]) -> tuple[str, float] | None:
    """Return the language with the greatest mean probability over the seconds of speech, and that mean.

    None when no window said anything.
    """
    sums: defaultdict[str, float] = defaultdict(float)
    total = 0.0
    for ballot in ballots:
        if ballot.languages:
            weight = max(ballot.seconds, 0.01)  # a window without speech still counts, if it is the only one
            total += weight
            for language, probability in ballot.languages:
                sums[language] += weight * probability
    if not sums:
        return None
    winner = max(sums, key=lambda language: sums[language])
    return winner, sums[winner] / total
