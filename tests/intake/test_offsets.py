"""The tracker by example; see test_offsets_model.py for everything else."""

from v2td.intake.offsets import OffsetTracker, Partition

JOBS_0 = Partition("jobs", 0)


def test_a_slow_record_holds_back_all_behind_it_and_then_lets_go_at_once() -> None:
    tracker = OffsetTracker()
    tracker.assign({JOBS_0})
    tickets = [tracker.receive(JOBS_0, offset) for offset in range(1000)]
    assert all(tickets)
    for ticket in tickets[1:]:
        assert ticket is not None
        tracker.resolve(ticket)
    assert tracker.committable() == {JOBS_0: 0}
    assert tracker.spread(JOBS_0) == 1000
    assert tickets[0] is not None
    tracker.resolve(tickets[0])
    assert tracker.committable() == {JOBS_0: 1000}
    assert tracker.spread(JOBS_0) == 0


def test_a_record_delivered_twice_in_an_epoch_waits_for_both_of_its_tickets() -> None:
    tracker = OffsetTracker()
    tracker.assign({JOBS_0})
    first, again = tracker.receive(JOBS_0, 5), tracker.receive(JOBS_0, 5)
    assert first is not None
    assert again is not None
    tracker.resolve(first)
    assert tracker.committable() == {JOBS_0: 5}
    tracker.resolve(again)
    assert tracker.committable() == {JOBS_0: 6}


def test_a_commit_of_a_partition_that_went_elsewhere_is_forgotten() -> None:
    tracker = OffsetTracker()
    tracker.assign({JOBS_0})
    tracker.committed({Partition("jobs", 1): 7})
    assert tracker.last_committed() == {JOBS_0: None}
