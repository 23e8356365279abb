"""What the scheduler promises, in virtual time: nobody starves, and short messages do not wait behind recordings."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.simulation import Job, Machine, Served, batch_seconds, capacity, messages
from v2td.engine.scheduler import WindowQueue

WINDOWS = 360  # three hours of speech
SHARE = 0.2
SPREAD = 0.2  # windows cost from 0.8 to 1.2 of what the cost model says

each_number_of_slots = pytest.mark.parametrize("slots", [1, 2, 4, 8])


def of(job: Job, served: list[Served]) -> list[Served]:
    return [window for window in served if window.job == job]


def short(served: list[Served]) -> list[Served]:
    return [window for window in served if window.job.windows == 1]


def percentile(waits: list[float], share: float) -> float:
    return sorted(waits)[min(len(waits) - 1, int(share * len(waits)))]


def longest_batch(served: list[Served]) -> float:
    return max(window.ended - window.began for window in served)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("batch_windows", [1, 4, 8])
@each_number_of_slots
@pytest.mark.parametrize(
    ("recording", "flood_priority"),
    [
        pytest.param(Job("R", 100.0, WINDOWS), 5, id="same key"),
        pytest.param(Job("R", 100.0, WINDOWS, key="en"), 5, id="other key"),
        pytest.param(Job("R", 100.0, WINDOWS, priority=9), 5, id="low priority"),
        pytest.param(Job("R", 100.0, WINDOWS, priority=9, key="en"), 0, id="other key, low priority, urgent flood"),
    ],
)
def test_a_recording_ends_under_a_flood(
    slots: int, batch_windows: int, seed: int, recording: Job, flood_priority: int
) -> None:
    """Messages at 120 % of capacity. The bound is that of the scheduler's docstring, and one batch to end."""
    per_second = capacity(slots, batch_windows)
    heaviest = float(batch_windows)
    latest = 2 * WINDOWS / (SHARE * per_second)
    machine = Machine(slots, batch_windows, oldest_share=SHARE, spread=SPREAD, seed=seed)
    flood = messages(1.2 * per_second, latest, seed=seed, priority=flood_priority)
    served = machine.run([recording, *flood], until=latest)
    windows = of(recording, served)
    assert len(windows) == WINDOWS

    before = sum(window.came <= recording.at < window.began for window in short(served))
    taken = sum(recording.at <= window.began and window.batch < windows[-1].batch for window in served)
    weight = (WINDOWS + before + (3 + SHARE) * heaviest) / SHARE
    assert taken <= weight
    ended = max(window.ended for window in windows) - recording.at
    assert ended <= (weight / per_second + batch_seconds(heaviest)) * (1 + SPREAD / 4)  # chance evens out
    assert ended >= 0.9 * WINDOWS / (SHARE * per_second)  # it was a flood indeed


def test_without_its_share_a_recording_starves() -> None:
    """What the share is for; and that the flood of the test above would show it."""
    recording = Job("recording", 100.0, WINDOWS)
    latest = 2 * WINDOWS / (SHARE * capacity(1, 8))
    flood = messages(1.2 * capacity(1, 8), latest, seed=1)
    served = Machine(1, oldest_share=0.0).run([recording, *flood], until=latest)
    assert len(of(recording, served)) <= 8


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("keys", [("vi", "vi", "vi"), ("en", "de", "fr"), ("vi", "en", "de")], ids="-".join)
@pytest.mark.parametrize("load", [0.3, 0.6])
@each_number_of_slots
def test_with_spare_capacity_a_message_waits_for_one_batch_of_one_slot(
    slots: int, load: float, keys: tuple[str, ...], seed: int
) -> None:
    """Beside three recordings of three hours and more, of which the first has been served the most."""
    first, *others = (Job(f"recording {number}", 0.0, 2 * WINDOWS, key=key) for number, key in enumerate(keys))
    later = [replace(job, at=200.0) for job in others]
    flow = messages(load * capacity(slots, 8), 1500.0, seed=seed, poisson=False)
    served = Machine(slots, spread=SPREAD, seed=seed).run([first, *later, *flow], until=1500.0)
    longest = longest_batch(served)
    assert longest <= 15 * (1 + SPREAD)  # batch_seconds_max, give or take what windows differ
    for message in short(served):
        # recordings that are new themselves each lead one batch before later messages, and what piles up meanwhile
        # takes some batches more: a slot's 40 % reserve works it off
        assert message.wait <= longest or 200 - longest <= message.came <= 200 + 8 * longest, message
    assert sum(window.job.windows > 1 for window in served) > 200  # and the recordings use what is left


@pytest.mark.parametrize("batch_seconds_max", [5.0, 10.0, 15.0])
@each_number_of_slots
def test_a_recording_delays_messages_by_less_than_a_batch(slots: int, batch_seconds_max: float) -> None:
    """The 99th percentile, messages coming at random at 60 % of capacity."""
    flow = list(messages(0.6 * capacity(slots, 2), 3000.0, seed=5))
    recordings = [Job("recording", 0.0, 20 * WINDOWS)]

    def waits(jobs: list[Job]) -> tuple[float, float]:
        served = Machine(slots, batch_seconds_max=batch_seconds_max, spread=SPREAD).run(jobs, until=3000.0)
        return percentile([window.wait for window in short(served)], 0.99), longest_batch(served)

    alone, _longest = waits(flow)
    beside, longest = waits(flow + recordings)
    assert beside <= alone + longest
    assert longest <= batch_seconds_max * (1 + 1.5 * SPREAD)  # what windows differ, and the estimate with them


@each_number_of_slots
def test_a_recording_spreads_over_all_slots(slots: int) -> None:
    served = Machine(slots, spread=SPREAD).run([Job("recording", 0.0, WINDOWS)])
    busy = [
        sum(end - began for began, end in {(window.began, window.ended) for window in served if window.slot == slot})
        for slot in range(slots)
    ]
    ended = max(window.ended for window in served)
    assert min(busy) >= 0.95 * ended
    assert ended <= 1.1 * WINDOWS / capacity(slots, 8)


def test_a_batch_is_of_one_key_and_urgent_ones_are_small() -> None:
    jobs = [Job("vi", 0.0, 50), Job("en", 0.0, 50, key="en"), *messages(0.2, 200.0, seed=3, priority=1)]
    served = Machine(2).run(jobs)
    for _number, group in groupby(sorted(served, key=lambda window: window.batch), key=lambda window: window.batch):
        batch = list(group)
        assert len({window.job.key for window in batch}) == 1
        assert len({window.job.priority for window in batch}) == 1  # nothing else rides along with the urgent ones
    assert len(served) == len({(window.job, window.index) for window in served}) == sum(job.windows for job in jobs)


def test_packed_clips_share_windows() -> None:
    """2000 clips of a tenth of a window are as good as done when 200 windows are."""
    clips = [Job(f"clip {number}", 0.0, weight=0.1) for number in range(2000)]
    served = Machine(2, batch_seconds_max=15.0).run(clips)
    assert len(served) == 2000
    assert max(window.ended for window in served) <= 1.05 * 200 / capacity(2, 8)


KEYS = st.sampled_from(["vi", "en", "de"])
WEIGHTS = st.sampled_from([0.125, 0.25, 0.5, 1.0, 1.5])
LIMITS = st.sampled_from([0.5, 1.0, 2.0, 4.0, 8.0])
JOBS = st.lists(st.tuples(st.integers(0, 9), KEYS, st.lists(WEIGHTS, max_size=12)), min_size=1, max_size=12)


def filled(jobs: list[tuple[int, object, list[float]]], share: float) -> WindowQueue[tuple[int, int]]:
    """A queue of windows (number of the job, number in the job)."""
    queue: WindowQueue[tuple[int, int]] = WindowQueue(oldest_share=share)
    for number, (priority, key, weights) in enumerate(jobs):
        job = queue.add_job(priority)
        for index, weight in enumerate(weights):
            queue.put(job, (number, index), key=key, weight=weight)
    return queue


@given(JOBS, LIMITS, st.floats(0, 0.9))
def test_every_window_comes_out_once_and_in_order(
    jobs: list[tuple[int, object, list[float]]], limit: float, share: float
) -> None:
    queue = filled(jobs, share)
    taken = [window for batch in iter(lambda: queue.take_batch(limit), []) for window in batch]
    for number, (_priority, _key, weights) in enumerate(jobs):
        assert [index for job, index in taken if job == number] == list(range(len(weights)))
    assert len(taken) == sum(len(weights) for _priority, _key, weights in jobs)
    assert (len(queue), queue.weight) == (0, 0.0)


@given(JOBS, st.lists(LIMITS, min_size=1, max_size=4), st.sampled_from([0.1, 0.2, 0.5]), st.data())
def test_no_job_starves(
    jobs: list[tuple[int, object, list[float]]], limits: list[float], share: float, data: st.DataObject
) -> None:
    """The bound of the docstring holds for each job, while a flood of more urgent jobs of any key comes in."""
    queue = filled(jobs, share)
    left = {number: len(weights) for number, (_, _, weights) in enumerate(jobs) if weights}
    weights = [weight for _, _, each in jobs for weight in each]
    heaviest = max([*limits, *weights])
    taken, turns = 0.0, 0
    flood_key = data.draw(KEYS)
    while left:
        while queue.weight < sum(weights) + 20:
            queue.put(queue.add_job(0), (-1, turns), key=flood_key, weight=1.0)
        turns += 1
        for job, index in queue.take_batch(limits[turns % len(limits)]):
            taken += jobs[job][2][index] if job >= 0 else 1.0
            if job < 0 or (index + 1 < len(jobs[job][2])):
                continue
            del left[job]
            own_and_before = sum(sum(each) for _, _, each in jobs[: job + 1])
            bound = (own_and_before + job * heaviest + (3 + share) * heaviest) / share
            assert taken <= bound + 1e-6
