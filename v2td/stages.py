"""What a job goes through here and how long it takes: in the metrics, in its row, and in its trail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from v2td import metrics
from v2td.jobs import Job


@dataclass(frozen=True, slots=True)
class Step:
    """A stage that a job went through; `start` and `seconds` in seconds, `start` since the trail began."""

    stage: str
    start: float
    seconds: float
    attempt: int


@dataclass(frozen=True, slots=True)
class Trace:
    """The span that a job is, in the words of W3C's Trace Context: ids in lower-case hex.

    `parent_id` is the producer's span, `state` its tracestate. `earlier` is the span of the try before, as `told`.
    """

    trace_id: str
    span_id: str
    sampled: bool
    parent_id: str | None = None
    state: str | None = None
    earlier: str | None = None

    @property
    def told(self) -> str:
        """What rows and headers say of it."""
        return f"{self.trace_id}-{self.span_id}"

    @property
    def traceparent(self) -> str:
        """The header by which others join the trace."""
        return f"00-{self.told}-{'01' if self.sampled else '00'}"


@dataclass(slots=True, eq=False)
class Trail:
    """One job's way through this process, from the poll of its record to its commit.

    `began` is its time.monotonic(), `began_at` its time.time(). `stage` is where it is now, `retry` while it waits
    for another attempt; None: between two.
    `priority` is how urgent it is now, which commands change.
    `timings` are this attempt's, for the row. `windows_known` were cut so far, all of them once `windows_cut`;
    `windows_heard` are the indices of those that have a text. `trace` is set when it is opened.
    """

    job: Job
    began: float = field(default_factory=lambda: time.monotonic())  # noqa: PLW0108 (a simulation moves the clock)
    began_at: float = field(default_factory=lambda: time.time())  # noqa: PLW0108 (as above)
    attempt: int = 1
    stage: str | None = None
    steps: list[Step] = field(default_factory=list)
    timings: dict[str, Any] = field(default_factory=dict)
    windows_known: int = 0
    windows_cut: bool = False
    windows_heard: set[int] = field(default_factory=set)
    trace: Trace | None = None  # None: nobody traces
    priority: int = field(init=False)

    def __post_init__(self) -> None:
        self.priority = self.job.priority

    def rank(self, priority: int) -> None:
        """Note how urgent the job is now."""
        self.priority = priority

    def begin(self, attempt: int) -> None:
        """Begin an attempt: nothing is known of its windows yet."""
        self.attempt = attempt
        self.timings = {"attempts": attempt}
        if self.trace is not None and self.trace.sampled:
            self.timings["trace"] = self.trace.told
        self.windows_known, self.windows_cut = 0, False
        self.windows_heard.clear()

    def add(self, stage: str, start: float, seconds: float) -> None:
        """Note a stage that began at time.monotonic() `start`."""
        self.timings[stage] = round(seconds, 6)
        self.steps.append(Step(stage, start - self.began, seconds, self.attempt))


class Stage:
    """One stage of a job's journey; its labels are looked up once, not for each job."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._in_flight = metrics.STAGE_IN_FLIGHT.labels(name)
        self._seconds = metrics.STAGE_SECONDS.labels(name)

    @contextmanager
    def under_way(self, trail: Trail | None) -> Iterator[None]:
        """Count a job as being in the stage, and record the time; what never became a job has no trail."""
        start = time.monotonic()
        self._in_flight.inc()
        if trail is not None:
            before, trail.stage = trail.stage, self._name
        try:
            yield
        finally:
            self._in_flight.dec()
            if trail is not None:
                trail.stage = before
            self.record(start, time.monotonic() - start, trail)

    def record(self, start: float, seconds: float, trail: Trail | None) -> None:
        """Record a time that was measured elsewhere; `start` is its time.monotonic()."""
        self._seconds.observe(seconds, exemplar_of(trail))
        if trail is not None:
            trail.add(self._name, start, seconds)


def exemplar_of(trail: Trail | None) -> dict[str, str] | None:
    """Return what leads from a metric to the job's trace; None where nobody could look it up."""
    if trail is None or trail.trace is None or not trail.trace.sampled:
        return None
    return {"trace_id": trail.trace.trace_id}
