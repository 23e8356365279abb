from __future__ import annotations

from uuid import UUID

import pytest

from v2td.bundled import recordings
from v2td.demo.jobs import DemoJob, Heard, Outcome, Refused
from v2td.demo.verdict import Result, Results
from v2td.errors import ErrorClass

RECORDING = recordings()[0]
ID = UUID(int=1)
GOOD = DemoJob(RECORDING.name, b"", recording=RECORDING)
LONG = DemoJob("long", b"", recording=max(recordings(), key=lambda recording: recording.seconds))
LONG_TEXT = LONG.recording.text if LONG.recording else ""
BAD = DemoJob("damaged.ogg", b"", error_class=ErrorClass.NOT_AUDIO)


def heard(text: str, speech: float = 3.0, coverage: float | None = 1.0) -> Heard:
    return Heard(ID, "en", 4.0, speech, coverage, text, 0.5)


@pytest.mark.parametrize(
    ("job", "outcome", "dead_letter", "problem"),
    [
        (GOOD, heard(RECORDING.text.upper().replace(".", "!")), False, None),
        (GOOD, heard(RECORDING.text.replace("Hanoi", "Paris")), False, None),
        (GOOD, heard(RECORDING.text.replace("Hanoi", "Paris").replace("five", "nine")), False, "word error rate 22%"),
        (LONG, heard(LONG_TEXT.rsplit(maxsplit=4)[0]), False, None),
        (LONG, heard(LONG_TEXT.rsplit(maxsplit=8)[0]), False, "word error rate"),
        (GOOD, heard("something else entirely"), False, "word error rate"),
        (GOOD, heard(""), False, "word error rate 100%"),
        (GOOD, Refused(ID, "timeout", "slow"), True, "failed as timeout"),
        (GOOD, None, False, "no outcome"),
        (BAD, Refused(ID, "not_audio", "noise"), True, None),
        (BAD, Refused(ID, "not_audio", "noise"), False, "no dead letter"),
        (BAD, Refused(ID, "timeout", "slow"), True, "failed as timeout"),
        (BAD, heard("text"), False, "expected to fail as not_audio"),
        (BAD, None, True, "no outcome"),
    ],
)
def test_a_verdict(job: DemoJob, outcome: Outcome | None, dead_letter: bool, problem: str | None) -> None:
    result = Result(job, outcome, dead_letter)
    if problem is None:
        assert result.problem is None
    else:
        assert result.problem is not None
        assert result.problem.startswith(problem)
    assert Results((result,), 1.0).good == (problem is None)


def test_the_summary_weighs_by_words_and_by_speech() -> None:
    results = Results(
        (
            Result(GOOD, heard(RECORDING.text, speech=3, coverage=1.0), False),
            Result(GOOD, heard("", speech=1, coverage=0.0), False),
            Result(BAD, Refused(ID, "not_audio", "noise"), True),
        ),
        wall_seconds=2.5,
    )
    assert results.summary() == {
        "jobs": 3,
        "transcribed": 2,
        "failed": 1,
        "word_error_rate": 0.5,
        "audio_seconds": 8.0,
        "wall_seconds": 2.5,
        "speech_coverage_ratio": 0.75,
    }


def test_the_summary_of_nothing() -> None:
    summary = Results((Result(GOOD, None, False),), 1.0).summary()
    assert (summary["word_error_rate"], summary["speech_coverage_ratio"]) == (None, None)
