"""The jobs that this process works on, and the last ones that it finished: what a person may want to look at."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol
from uuid import UUID

from v2td.errors import ErrorClass
from v2td.jobs import Failure, Job, Outcome, SourceRecord, Transcript
from v2td.messages import without_secrets
from v2td.stages import Trail

KEPT = 1000  # finished jobs; a thousand trails take about a megabyte

_NO_RECORD = SourceRecord(None, None, ())


@dataclass(slots=True, eq=False)
class Finished:
    """A job whose outcome is durable.

    Its trail has no record and no metadata any more. `ended` is a time.monotonic(); `audio_seconds` is None for a
    failure. `committed` is the time.monotonic() at which Kafka had its offset; None: not yet, or never from here.
    `busy_seconds` are those in which it had a slot (its part of each batch), or a provider.
    """

    trail: Trail
    ended: float
    audio_seconds: float | None
    provider: str | None
    error_class: ErrorClass | None
    reason: str | None
    committed: float | None = None
    busy_seconds: float = 0.0


class Watcher(Protocol):
    """Who wants to know what becomes of jobs; its methods are quick and raise nothing."""

    def opened(self, trail: Trail) -> None:
        """A job begins."""

    def closed(self, trail: Trail, outcome: Outcome | None) -> None:
        """Its outcome is durable, and told; None: it was given up, to be delivered again."""

    def committed(self, finished: Finished) -> None:
        """Kafka has its offset."""


class Board:
    """All trails of this process by job; `audio_seconds` and `finished` sum over all jobs since it began.

    `busy_seconds` are those in which jobs that were transcribed here had the engine or a provider. A text that was
    there already adds to neither `audio_seconds` nor them: of it nobody is slow or fast.
    """

    def __init__(self, watchers: Collection[Watcher] = (), kept: int = KEPT) -> None:
        self._watchers = tuple(watchers)
        self._kept = kept
        self._under_way: dict[UUID, Trail] = {}
        self._finished: OrderedDict[UUID, Finished] = OrderedDict()
        self._uncommitted: dict[tuple[str, int], deque[Finished]] = {}
        self.audio_seconds = 0.0
        self.busy_seconds = 0.0
        self.finished: Counter[str] = Counter()  # transcribed, or the class of error

    def open(self, job: Job) -> Trail:
        """Begin a job's trail."""
        trail = Trail(job)
        self._under_way[job.id] = trail
        for watcher in self._watchers:
            watcher.opened(trail)
        return trail

    def close(self, trail: Trail, outcome: Outcome | None) -> None:
        """End it with its durable outcome; None: the job was given up, and comes again here or elsewhere."""
        job = trail.job
        if self._under_way.get(job.id) is trail:
            del self._under_way[job.id]
        for watcher in self._watchers:
            watcher.closed(trail, outcome)
        if outcome is None:
            return
        trail.job = replace(job, audio_url=without_secrets(job.audio_url), record=_NO_RECORD, metadata={})
        finished = _finished(trail, outcome)
        self.finished[finished.error_class or "transcribed"] += 1
        if isinstance(outcome, Transcript) and "cached" not in outcome.timings:
            self.audio_seconds += outcome.audio_seconds
            self.busy_seconds += finished.busy_seconds
        self._finished[job.id] = finished
        self._finished.move_to_end(job.id)
        if len(self._finished) > self._kept:
            self._finished.popitem(last=False)
        record = job.replay.record if job.replay else job.coordinates
        waiting = self._uncommitted.setdefault((record.topic, record.partition), deque(maxlen=self._kept))
        waiting.append(finished)

    def committed(self, offsets: Iterable[tuple[tuple[str, int], int]]) -> None:
        """Note that Kafka has these offsets of topics and partitions."""
        now = time.monotonic()
        for partition, offset in offsets:
            waiting = self._uncommitted.pop(partition, ())
            kept: deque[Finished] = deque(maxlen=self._kept)
            for finished in waiting:
                job = finished.trail.job
                if (job.replay.record if job.replay else job.coordinates).offset >= offset:
                    kept.append(finished)
                    continue
                finished.committed = now
                for watcher in self._watchers:
                    watcher.committed(finished)
            if kept:
                self._uncommitted[partition] = kept

    @property
    def under_way(self) -> Collection[Trail]:
        """The trails of the jobs that are worked on, in order of arrival."""
        return self._under_way.values()

    @property
    def recent(self) -> Collection[Finished]:
        """The last finished jobs, the newest last."""
        return self._finished.values()

    def find(self, job: UUID) -> Trail | Finished | None:
        """Return what is known here of a job."""
        return self._under_way.get(job) or self._finished.get(job)


def _finished(trail: Trail, outcome: Outcome) -> Finished:
    if isinstance(outcome, Failure):
        return Finished(trail, time.monotonic(), None, None, outcome.error_class, outcome.reason)
    busy = _busy_seconds(outcome.timings)
    return Finished(trail, time.monotonic(), outcome.audio_seconds, outcome.provider, None, None, busy_seconds=busy)


def _busy_seconds(timings: Mapping[str, Any]) -> float:
    if "windows" in timings:
        return float(sum(each["seconds"] / each.get("batch", 1) for each in timings["windows"]))
    return float(timings.get("transcribe", 0.0))
