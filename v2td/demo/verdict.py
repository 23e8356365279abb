"""What came of the demo's jobs, measured against what was said and what was broken. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jiwer

from v2td.demo.jobs import DemoJob, Heard, Outcome, Refused

# The model gets these recordings right, but for a word of the long ones: what is allowed beyond that, 3 % or one word
# of a short recording, is for processors that round int8 otherwise.
MAX_WORD_ERROR_RATE = 0.03

WORDS = jiwer.Compose(  # what counts as equal: case and punctuation aside
    [
        jiwer.ToLowerCase(),
        jiwer.RemovePunctuation(),  # type: ignore[no-untyped-call] # jiwer left out its "-> None"
        jiwer.RemoveMultipleSpaces(),
        jiwer.Strip(),
        jiwer.ReduceToListOfListOfWords(),
    ]
)


@dataclass(frozen=True, slots=True)
class Result:
    """A job and its end; no outcome means that none came in time."""

    job: DemoJob
    outcome: Outcome | None
    dead_letter: bool

    @property
    def word_error_rate(self) -> float | None:
        """Of a transcribed recording: wrong, missing and added words / words spoken, case and punctuation aside."""
        if self.job.recording is None or not isinstance(self.outcome, Heard):
            return None
        return word_error_rate([self.job.recording.text], [self.outcome.text])

    @property
    def problem(self) -> str | None:
        """Why this is not the end that the job should have come to; None when it is."""
        match self.outcome:
            case None:
                return "no outcome"
            case Heard(text=text):
                if self.job.recording is None:
                    return f"expected to fail as {self.job.error_class}"
                return _wrong_words(self.job.recording.text, text)
            case Refused(error_class=error_class):
                if error_class != self.job.error_class:
                    return f"failed as {error_class}"
                return None if self.dead_letter else "no dead letter"


def _wrong_words(spoken: str, heard: str) -> str | None:
    rate = word_error_rate([spoken], [heard])
    return f"word error rate {rate:.0%}" if rate > max(MAX_WORD_ERROR_RATE, 1 / len(spoken.split())) else None


def word_error_rate(spoken: Sequence[str], heard: Sequence[str]) -> float:
    """Over all texts together."""
    return float(jiwer.wer(list(spoken), list(heard), reference_transform=WORDS, hypothesis_transform=WORDS))


@dataclass(frozen=True, slots=True)
class Results:
    """Of all jobs, in the order they were sent; `wall_seconds` from the first submission to the last outcome."""

    results: tuple[Result, ...]
    wall_seconds: float

    @property
    def good(self) -> bool:
        """Whether every job came to the end it should."""
        return all(result.problem is None for result in self.results)

    @property
    def transcribed(self) -> tuple[tuple[Result, Heard], ...]:
        """The results that have a text."""
        return tuple((result, result.outcome) for result in self.results if isinstance(result.outcome, Heard))

    @property
    def failed(self) -> tuple[tuple[Result, Refused], ...]:
        """The results that are a failure."""
        return tuple((result, result.outcome) for result in self.results if isinstance(result.outcome, Refused))

    def summary(self) -> dict[str, Any]:
        """The object that --json prints; rates are None when there is nothing to measure."""
        pairs = [(r.job.recording.text, heard.text) for r, heard in self.transcribed if r.job.recording]
        heard = [outcome for _, outcome in self.transcribed]
        speech = sum(outcome.speech_seconds for outcome in heard)
        covered = sum((outcome.speech_coverage_ratio or 0.0) * outcome.speech_seconds for outcome in heard)
        return {
            "jobs": len(self.results),
            "transcribed": len(heard),
            "failed": len(self.failed),
            "word_error_rate": round(word_error_rate(*zip(*pairs, strict=True)), 4) if pairs else None,
            "audio_seconds": round(sum(outcome.audio_seconds for outcome in heard), 2),
            "wall_seconds": round(self.wall_seconds, 2),
            "speech_coverage_ratio": round(covered / speech, 4) if speech else None,
        }
