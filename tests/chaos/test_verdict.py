"""The verdict finds each thing that may be wrong, and finds nothing wrong where all is well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.producer import Sent
from tests.chaos.verdict import Durable, Outcome, Verdict, judge, key_of
from v2td.jobs import Coordinates

SENT = [Sent("jobs", number % 2, number // 2, 1000 + number, f"job-{number}") for number in range(10)]
FAILED = {3, 4}


def outcome(record: Sent, *, failed: bool = False) -> Outcome:
    text = None if failed else f"echo {record.job_id} 0/2 echo {record.job_id} 1/2"
    segments = 0 if failed else 2
    place = (record.topic, record.partition, record.offset, 0, record.timestamp_ms)
    return Outcome(f"id-{record.partition}-{record.offset}", *place, record.job_id, text, segments, segments)


OUTCOMES = [outcome(record, failed=number in FAILED) for number, record in enumerate(SENT)]
LETTERS = frozenset(each.id for each in OUTCOMES if each.text is None)


def verdict(
    outcomes: Sequence[Outcome],
    letters: frozenset[str] = LETTERS,
    replays: frozenset[tuple[str, int, int]] = frozenset(),
    *,
    committed: int = 100,
    sent: Sequence[Sent] = SENT,
    unsure: frozenset[str] = frozenset(),
    excused: Sequence[Sent] = (),
) -> Verdict:
    durable = Durable(outcomes, letters, replays, {("jobs", partition): committed for partition in (0, 1)})
    return judge(sent, durable, unsure=unsure, excused={key_of(record) for record in excused})


def test_all_is_well() -> None:
    assert verdict(OUTCOMES) == Verdict(records=10)


@given(st.sets(st.integers(0, 9), min_size=1))
def test_each_lost_record_counts(missing: set[int]) -> None:
    found = verdict([each for number, each in enumerate(OUTCOMES) if number not in missing])
    assert (found.lost, found.duplicates) == (len(missing), 0)
    assert "no outcome" in found.problems[0]


def test_what_nobody_read_yet_is_not_lost() -> None:
    found = verdict(OUTCOMES[:8], committed=4)  # of each of two partitions
    assert found.lost == 0
    assert found.problems == ["2 × no outcome yet, and not committed: jobs/0/4, jobs/1/4"]
    assert verdict(OUTCOMES[:7], committed=4).lost == 1


@given(st.sets(st.integers(0, 9), min_size=1))
def test_each_duplicate_counts(twice: set[int]) -> None:
    again = [replace(OUTCOMES[number], id=f"other-{number}", text="words") for number in twice]
    found = verdict([*OUTCOMES, *again])
    assert (found.lost, found.duplicates) == (0, len(twice))
    assert any("there twice" in problem for problem in found.problems)


def test_a_transcription_beside_a_failure_is_a_duplicate() -> None:
    found = verdict([*OUTCOMES, replace(OUTCOMES[3], text="words")])
    assert found.duplicates == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"offset": 99}, "nobody sent"),
        ({"timestamp_ms": 1}, "nobody sent"),
        ({"job_id": "job-7"}, "another job's outcome"),
        ({"text": "echo job-7 0/1", "segments": 1, "distinct_segments": 1}, "another job's text"),
        ({"text": "echo job-0 0/2"}, "not all of it"),
        ({"text": "echo job-0 1/2 echo job-0 0/2"}, "not all of it"),
        ({"segments": 1, "distinct_segments": 1}, "not all of it"),
        ({"segments": 3}, "segments twice"),
        ({"text": None}, "without a dead letter"),
        ({"text": None, "waits": True}, "waits for its replay"),
    ],
)
def test_a_wrong_outcome_is_a_problem(change: dict[str, object], problem: str) -> None:
    wrong = replace(OUTCOMES[0], **change)  # type: ignore[arg-type]  # any field
    found = verdict([wrong, *OUTCOMES[1:]])
    assert any(problem in each for each in found.problems), found


@pytest.mark.parametrize(
    ("left", "problem"),
    [
        ({"windows": ["a", "b"]}, "2 × windows of a job that has ended: a, b"),
        ({"deaths": ["a"]}, "1 × deaths of a job that has ended: a"),
        ({"stray_segments": ["a"]}, "1 × segments without their transcription: a"),
    ],
)
def test_what_is_left_behind_is_a_problem(left: dict[str, list[str]], problem: str) -> None:
    durable = Durable(OUTCOMES, LETTERS, **left)  # type: ignore[arg-type]  # any field
    assert judge(SENT, durable, unsure=(), excused=()).problems == [problem]


def test_who_is_excused_may_leave_something_behind_or_wait_for_a_replay() -> None:
    excused = SENT[0]
    row_id = str(Coordinates("c", excused.topic, excused.partition, excused.offset, excused.timestamp_ms).row_id())
    outcomes = [replace(OUTCOMES[0], text=None, waits=True), *OUTCOMES[1:]]
    durable = Durable(outcomes, LETTERS, cluster="c", windows=[row_id], deaths=[row_id])
    assert judge(SENT, durable, unsure=(), excused={key_of(excused)}).problems == []
    assert len(judge(SENT, durable, unsure=(), excused=()).problems) == 3


def test_a_missing_letter_is_a_problem() -> None:
    (problem,) = verdict(OUTCOMES, letters=frozenset()).problems
    assert problem.startswith(f"{len(FAILED)} × a failure without a dead letter")


def test_a_replay_is_the_outcome_of_its_record() -> None:
    replaying = Sent("jobs", 0, 99, 5, None)
    assert verdict(OUTCOMES, sent=[*SENT, replaying]).lost == 1
    assert verdict(OUTCOMES, sent=[*SENT, replaying], replays=frozenset({("jobs", 0, 99)})).lost == 0


def test_who_is_excused_may_have_an_outcome_or_none() -> None:
    assert verdict(OUTCOMES, excused=SENT[:2]) == verdict(OUTCOMES[2:], excused=SENT[:2]) == Verdict(records=10)


def test_what_was_not_acknowledged_may_have_an_outcome_or_none() -> None:
    sure = SENT[1:]
    assert verdict(OUTCOMES, sent=sure, unsure=frozenset({"job-0"})).problems == []
    assert verdict(OUTCOMES[1:], sent=sure, unsure=frozenset({"job-0"})).problems == []
    assert "nobody sent" in verdict(OUTCOMES, sent=sure).problems[0]
