"""What the watch makes of a board and a status: rates, the backlog, stages, a history that does not grow."""

from __future__ import annotations

import asyncio
import json
import math
import time
from typing import Any

import pytest

from tests.admin.serving import STATUS
from v2td import metrics, watch
from v2td.board import Board
from v2td.config import Settings
from v2td.errors import ErrorClass
from v2td.jobs import Coordinates, Failure, Job, SourceRecord, Transcript
from v2td.stages import Step
from v2td.watch import Watch

WINDOWS = [{"index": index, "slot": 0, "start": 0.1, "seconds": 2.0, "flags": [], "batch": 2} for index in range(2)]


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def looking(board: Board) -> Watch:
    dsn = {"dsn": "postgresql://v2td@localhost/v2td"}
    kafka = {"bootstrap_servers": ["localhost:9092"], "topics": ["t"]}
    return Watch(board, Settings.model_validate({"database": dsn, "kafka": kafka}))


def at(offset: int) -> Coordinates:
    return Coordinates("cluster", "t", 0, offset, 1000)


def transcribe(board: Board, offset: int, seconds: float = 30.0) -> None:
    trail = board.open(Job(at(offset), "https://example.com/a.wav"))
    trail.steps += [Step("fetch", 0.0, offset / 10, 1), Step("write", 1.0, 0.5, 1)]
    board.close(
        trail,
        Transcript(
            *(trail.job, "0" * 64, 1, seconds, seconds, seconds, "en", 1.0, (), "local", "base", False, 1.0),
            timings={"windows": WINDOWS},
        ),
    )


def fail(board: Board, offset: int) -> None:
    trail = board.open(Job(at(offset), "https://example.com/a.wav"))
    board.close(trail, Failure(at(offset), ErrorClass.NOT_FOUND, "secret words", 1, SourceRecord(None, None, ())))
    metrics.JOBS_FAILED.labels(ErrorClass.NOT_FOUND).inc()  # as the delivery does


def status(*lags: int | None) -> dict[str, Any]:
    partitions = [{**STATUS["partitions"][0], "partition": number, "lag": lag} for number, lag in enumerate(lags)]
    return {**STATUS, "partitions": partitions, "queued_windows": 7}


def test_rates_and_the_backlog(looking: Watch, board: Board) -> None:
    began = time.monotonic()
    looking.sample(status(), began)
    for offset in range(8):
        transcribe(board, offset)
    fail(board, 8)
    looking.sample(status(100, None, 20), began + 30)
    told = looking.told
    assert told["throughput"] == {
        "jobs_per_minute": pytest.approx(18, abs=0.1),
        "failed_per_minute": pytest.approx(2, abs=0.1),
        "audio_per_second": pytest.approx(8, abs=0.1),
        "real_time_factor": pytest.approx(2 / 30, abs=1e-4),  # two windows that shared a slot for two seconds each
    }
    assert (told["transcribed"], told["failed"]) == (8, {"not_found": 1})
    assert told["backlog"]["records"] == 120
    assert told["backlog"]["audio_seconds"] == 3600
    assert told["backlog"]["drain_seconds"] == pytest.approx(450, abs=1)
    assert told["backlog"]["cores_needed"] == pytest.approx(2 / 30, abs=1e-4)
    assert metrics.BACKLOG_ESTIMATED_SECONDS._value.get() == 3600
    assert metrics.DRAIN_SECONDS._value.get() == pytest.approx(450, abs=1)
    for later in range(40):
        looking.sample(status(100), began + 32 + 2 * later)
    assert looking.told["throughput"]["jobs_per_minute"] == 0
    assert looking.told["backlog"]["drain_seconds"] is None
    assert math.isnan(metrics.DRAIN_SECONDS._value.get())


def test_stages_and_jobs(looking: Watch, board: Board) -> None:
    for offset in range(1, 21):
        transcribe(board, offset)
    trail = board.open(Job(at(30), "https://user:password@example.com/b.wav?key=1", job_id="theirs", priority=2))
    trail.stage, trail.windows_known = "transcribe", 1
    decoding, again = (board.open(Job(at(each), "https://example.com/a.wav")) for each in (40, 41))
    decoding.stage, again.stage = "transcribe", "retry"
    looking.sample(status(), time.monotonic())
    stages = {each["stage"]: each for each in looking.told["stages"]}
    assert stages["fetch"] == {"stage": "fetch", "in_flight": 0, "waiting": 0, "p50": 1.1, "p95": 2.0}
    assert stages["transcribe"] == {"stage": "transcribe", "in_flight": 1, "waiting": 7, "p50": None, "p95": None}
    assert (stages["prepare"]["in_flight"], stages["retry"]["in_flight"]) == (1, 1)
    under_way = looking.told["under_way"][0]
    assert (under_way["job"], under_way["offset"], under_way["priority"]) == (str(trail.job.id), 30, 2)
    assert [each["offset"] for each in looking.told["recent"]] == list(range(20, 0, -1))
    fail(board, 31)
    looking.sample(status(), time.monotonic())
    said = json.dumps(looking.told)
    for secret in ("example.com", "password", "theirs", "secret words"):
        assert secret not in said


def test_the_history_ends(looking: Watch) -> None:
    for _ in range(3000):
        looking.sample(status(5), time.monotonic())
    told = looking.history()
    assert len(told["points"]) <= watch.TOLD_POINTS
    assert told["points"] == sorted(told["points"])
    assert [len(told["fields"])] == list({len(point) for point in told["points"]})
    assert len(looking._points) == 1800


async def test_a_sample_that_fails_ends_nothing(looking: Watch) -> None:
    answers = iter([{}, status()])  # the first has nothing that is looked for
    running = asyncio.create_task(looking.run(lambda: next(answers)))
    try:
        assert await asyncio.wait_for(looking.after(0), 30) == 1
        assert looking.told["version"] == STATUS["version"]
    finally:
        running.cancel()


async def test_whoever_waits_hears_of_each_sample(looking: Watch) -> None:
    running = asyncio.create_task(looking.run(status))
    try:
        first = await asyncio.wait_for(looking.after(0), 5)
        assert first == 1
        assert await asyncio.wait_for(looking.after(first), 30) == 2
    finally:
        running.cancel()
