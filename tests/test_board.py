"""What a board knows of jobs under way and finished, and when it forgets."""

from dataclasses import replace

import pytest

from tests.store.outcomes import transcript
from v2td.backlog import backlog
from v2td.board import Board, Finished
from v2td.errors import ErrorClass
from v2td.jobs import Coordinates, Failure, Job, Outcome, Replay, SourceRecord
from v2td.stages import Stage, Trail

RECORD = SourceRecord(b"k", b"a long value", ())


class Seen:
    def __init__(self) -> None:
        self.told: list[str] = []

    def opened(self, trail: Trail) -> None:
        self.told.append(f"opened {trail.job.coordinates.offset}")

    def closed(self, trail: Trail, outcome: Outcome | None) -> None:
        self.told.append(f"closed {trail.job.coordinates.offset} {'given up' if outcome is None else 'ended'}")

    def committed(self, finished: Finished) -> None:
        self.told.append(f"committed {finished.trail.job.coordinates.offset}")


def at(offset: int) -> Coordinates:
    return Coordinates("cluster", "t", 0, offset, 1000)


def job(offset: int) -> Job:
    return Job(at(offset), "https://user:secret@example.com/a.wav?token=1", record=RECORD, metadata={"a": 1})


def failure(job: Job) -> Failure:
    return Failure(job.coordinates, ErrorClass.NOT_FOUND, "gone", 1, RECORD)


def is_committed(finished: Finished) -> bool:
    return finished.committed is not None


def test_a_job_from_its_record_to_its_commit() -> None:
    seen = Seen()
    board = Board([seen])
    one, two = board.open(job(1)), board.open(job(2))
    assert list(board.under_way) == [one, two]
    board.close(one, failure(one.job))
    found = board.find(at(1).row_id())
    assert isinstance(found, Finished)
    assert found.error_class is ErrorClass.NOT_FOUND
    board.committed([(("t", 0), 1)])  # everything below 1
    assert not is_committed(found)
    board.close(two, failure(two.job))
    board.committed([(("other", 0), 9), (("t", 0), 2)])
    assert is_committed(found)
    board.committed([(("t", 0), 3)])
    assert seen.told == ["opened 1", "opened 2", "closed 1 ended", "closed 2 ended", "committed 1", "committed 2"]
    assert not board.under_way
    assert board.finished == {ErrorClass.NOT_FOUND: 2}


def test_what_is_finished_keeps_no_record_and_no_secret() -> None:
    board = Board(kept=2)
    for offset in range(3):
        trail = board.open(job(offset))
        board.close(trail, failure(trail.job))
    assert [each.trail.job.coordinates.offset for each in board.recent] == [1, 2]
    assert board.find(at(0).row_id()) is None
    for each in board.recent:
        assert each.trail.job.record == SourceRecord(None, None, ())
        assert each.trail.job.metadata == {}
        assert "secret" not in each.trail.job.audio_url
        assert "token" not in each.trail.job.audio_url


def test_what_was_given_up_is_forgotten() -> None:
    board = Board()
    board.close(board.open(job(1)), None)
    assert board.find(at(1).row_id()) is None
    assert not board.recent


def test_a_replay_is_committed_with_its_own_record() -> None:
    board = Board()
    trail = board.open(replace(job(1), replay=Replay(at(50))))
    board.close(trail, failure(trail.job))
    (found,) = board.recent
    board.committed([(("t", 0), 50)])
    assert not is_committed(found)
    board.committed([(("t", 0), 51)])
    assert is_committed(found)


def test_steps_of_a_trail() -> None:
    trail = Trail(job(1))
    trail.begin(2)
    with Stage("fetch").under_way(trail):
        during = trail.stage
    assert (during, trail.stage) == ("fetch", None)
    Stage("queue").record(trail.began + 1, 0.5, trail)
    assert [(each.stage, each.attempt) for each in trail.steps] == [("fetch", 2), ("queue", 2)]
    assert trail.steps[1].start == pytest.approx(1)
    assert trail.steps[1].seconds == 0.5
    assert trail.timings == {"attempts": 2, "fetch": trail.timings["fetch"], "queue": 0.5}


def test_the_backlog_in_hours_of_audio() -> None:
    found = backlog(100, 60.0, 20.0, 10.0)
    assert (found.audio_seconds, found.drain_seconds) == (6000, 300)
    assert found.cores_needed == pytest.approx(1 / 6)
    assert backlog(0, None, None, None).drain_seconds == 0
    unknown = backlog(5, None, 20.0, 10.0)
    assert unknown.audio_seconds == 0
    assert unknown.drain_seconds is None
    assert unknown.cores_needed is None
    assert backlog(5, 10.0, 0.0, None).drain_seconds is None


def test_a_text_that_was_there_already_is_no_work() -> None:
    board = Board()
    for offset, timings in enumerate(({"transcribe": 2.0}, {"cached": "postgres"})):
        heard = transcript(offset, timings=timings)
        board.close(board.open(heard.job), heard)
    assert board.finished == {"transcribed": 2}
    assert (board.audio_seconds, board.busy_seconds) == (5.0, 2.0)
