"""What the daemon does, looked at every two seconds, and over the last hour: for the page, and for the metrics of it.

Numbers and ids only: nothing of what was said, of where recordings lie, or of what producers call their jobs.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, NamedTuple

from v2td import __version__, metrics
from v2td.backlog import Backlog, backlog
from v2td.board import Board, Finished
from v2td.config import Settings
from v2td.logs import get_logger
from v2td.stages import Trail

log = get_logger(__name__)

SAMPLE_SECONDS = 2.0
HISTORY_SECONDS = 3600.0
RATE_SECONDS = 60.0  # rates are those of the last minute
TOLD_POINTS = 360  # of the history; a chart has no more pixels
SHOWN_JOBS = 20
LOOKED_AT = 500  # finished jobs, for percentiles
STAGES = ("fetch", "queue", "prepare", "transcribe", "write")
RETRY = "retry"  # a stage of its own for who waits in it, but none that takes time of ours


class _Totals(NamedTuple):
    """Sums since the daemon began; `at` is a time.monotonic()."""

    at: float
    jobs: int
    failed: int
    audio_seconds: float
    busy_seconds: float

    def rates(self, before: _Totals) -> Rates:
        """Return what happened since then, for each unit of time."""
        seconds = max(self.at - before.at, 1e-3)
        audio = self.audio_seconds - before.audio_seconds
        busy = self.busy_seconds - before.busy_seconds
        return Rates(
            jobs_per_minute=60 * (self.jobs - before.jobs) / seconds,
            failed_per_minute=60 * (self.failed - before.failed) / seconds,
            audio_per_second=audio / seconds,
            real_time_factor=busy / audio if audio > 0 else None,
        )


@dataclass(frozen=True, slots=True)
class Rates:
    """How much is done; `real_time_factor` is seconds of a slot or a provider for a second of audio, None: no audio."""

    jobs_per_minute: float
    failed_per_minute: float
    audio_per_second: float
    real_time_factor: float | None


class Point(NamedTuple):
    """One moment of the history; `at` in seconds since the epoch."""

    at: float
    jobs_per_minute: float
    failed_per_minute: float
    audio_per_second: float
    real_time_factor: float | None
    backlog_records: int
    backlog_audio_seconds: float


class Watch:
    """Looks at the daemon while `run` runs."""

    def __init__(self, board: Board, settings: Settings) -> None:
        self._board = board
        self._fetches = settings.fetch.concurrency
        self._failed_before = _by_class()
        self._totals = deque([self._sums(time.monotonic())], maxlen=int(RATE_SECONDS / SAMPLE_SECONDS) + 1)
        self._points: deque[Point] = deque(maxlen=int(HISTORY_SECONDS / SAMPLE_SECONDS))
        self._changed = asyncio.Condition()
        self.number = 0  # of the last sample
        self.told: dict[str, Any] = {}  # the last sample
        metrics.BUILD_INFO.labels(__version__, settings.engine.model).set(1)

    async def run(self, status: Callable[[], dict[str, Any]]) -> None:
        """Take samples, for ever; `status` returns what /status shows."""
        while True:
            try:
                self.sample(status(), time.monotonic())
            except Exception:  # whoever looks does without: no job does
                log.exception("no sample")
            async with self._changed:
                self._changed.notify_all()
            await asyncio.sleep(SAMPLE_SECONDS)

    async def after(self, number: int) -> int:
        """Return the number of the last sample, as soon as there is a later one than `number`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.number > number)
        return self.number

    def history(self) -> dict[str, Any]:
        """Return the last hour, oldest first, thinned out to a chart's pixels."""
        step = -(-len(self._points) // TOLD_POINTS) or 1
        points = list(islice(reversed(self._points), 0, None, step))[::-1]
        return {"fields": Point._fields, "points": [[_rounded(each) for each in point] for point in points]}

    def sample(self, status: dict[str, Any], monotonic: float) -> None:
        """Take note of everything once; it takes about half a millisecond with a thousand jobs."""
        now = self._sums(monotonic)
        self._totals.append(now)
        rates = now.rates(self._totals[0])
        waits = _backlog(status["partitions"], self._board.recent, rates)
        _publish(waits)
        at = time.time()
        self._points.append(Point(at, *_numbers(rates), waits.records, waits.audio_seconds))
        recent = list(self._board.recent)[::-1]  # the newest first
        self.told = {
            **status,
            "at": round(at, 3),
            "throughput": {name: _rounded(each) for name, each in asdict(rates).items()},
            "rate_seconds": round(now.at - self._totals[0].at, 1),
            "backlog": {name: _rounded(each) for name, each in asdict(waits).items()},
            "stages": self._stages(recent, status["queued_windows"]),
            "transcribed": self._board.finished["transcribed"],
            "failed": dict(self._failed()),
            "under_way": [_of_trail(each, now.at) for each in islice(self._board.under_way, SHOWN_JOBS)],
            "recent": [_of_finished(each, now.at) for each in recent[:SHOWN_JOBS]],
        }
        self.number += 1

    def _sums(self, monotonic: float) -> _Totals:
        board, failed = self._board, self._failed().total()
        jobs = board.finished["transcribed"] + failed
        return _Totals(monotonic, jobs, failed, board.audio_seconds, board.busy_seconds)

    def _failed(self) -> Counter[str]:
        """Return the failures by class; of messages that never became a job, too, which the board does not know."""
        return _by_class() - self._failed_before

    def _stages(self, recent: list[Finished], queued_windows: int) -> list[dict[str, Any]]:
        in_flight = Counter(map(_stage_of, self._board.under_way))
        seconds: dict[str, list[float]] = {stage: [] for stage in STAGES}
        for finished in recent[:LOOKED_AT]:
            for step in finished.trail.steps:
                if step.stage in seconds:
                    seconds[step.stage].append(step.seconds)
        # What waits: downloads for a place, recordings for a decoder, windows for a slot.
        waiting = {"fetch": max(0, in_flight["fetch"] - self._fetches), "transcribe": queued_windows}
        return [
            {
                "stage": stage,
                "in_flight": in_flight[stage],
                "waiting": waiting.get(stage),
                "p50": _percentile(took, 0.5),
                "p95": _percentile(took, 0.95),
            }
            for stage, took in ((stage, sorted(seconds.get(stage, ()))) for stage in (*STAGES, RETRY))
        ]


def _backlog(partitions: Iterable[dict[str, Any]], recent: Iterable[Finished], rates: Rates) -> Backlog:
    """Return what waits in this instance's partitions, judged by what it heard and how fast it is."""
    lengths = [each.audio_seconds for each in recent if each.audio_seconds is not None]
    mean = sum(lengths) / len(lengths) if lengths else None
    factor = rates.real_time_factor
    return backlog(
        sum(each["lag"] or 0 for each in partitions), mean, rates.audio_per_second, 1 / factor if factor else None
    )


def _by_class() -> Counter[str]:
    (metric,) = metrics.JOBS_FAILED.collect()
    return Counter(
        {each.labels["error_class"]: int(each.value) for each in metric.samples if each.name.endswith("_total")}
    )


def _numbers(rates: Rates) -> tuple[float, float, float, float | None]:
    return rates.jobs_per_minute, rates.failed_per_minute, rates.audio_per_second, rates.real_time_factor


def _publish(waits: Backlog) -> None:
    unknown = float("nan")
    metrics.BACKLOG_ESTIMATED_SECONDS.set(waits.audio_seconds)
    metrics.DRAIN_SECONDS.set(unknown if waits.drain_seconds is None else waits.drain_seconds)
    metrics.CORES_NEEDED.set(unknown if waits.cores_needed is None else waits.cores_needed)


def _percentile(ordered: list[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 6) if ordered else None


def _stage_of(trail: Trail) -> str | None:
    """Return where a job is; what is decoded goes to the slots as it comes, and has nothing to transcribe before."""
    return "prepare" if trail.stage == "transcribe" and not trail.windows_known else trail.stage


def _of_trail(trail: Trail, now: float) -> dict[str, Any]:
    return {
        **_of_job(trail),
        "stage": _stage_of(trail),
        "seconds": round(now - trail.began, 1),
        "windows_heard": len(trail.windows_heard),
        "windows_known": trail.windows_known,
        "windows_cut": trail.windows_cut,
    }


def _of_finished(finished: Finished, now: float) -> dict[str, Any]:
    return {
        **_of_job(finished.trail),
        "seconds": round(finished.ended - finished.trail.began, 3),
        "ago": round(now - finished.ended, 1),
        "audio_seconds": _rounded(finished.audio_seconds),
        "provider": finished.provider,
        "error_class": finished.error_class,
        "committed": finished.committed is not None,
    }


def _of_job(trail: Trail) -> dict[str, Any]:
    at = trail.job.coordinates
    return {
        "job": str(trail.job.id),
        "topic": at.topic,
        "partition": at.partition,
        "offset": at.offset,
        "priority": trail.priority,
        "attempt": trail.attempt,
    }


def _rounded(value: float | None) -> float | None:
    return value if value is None or isinstance(value, int) else round(value, 4)
