"""How long jobs spend in a stage, in the metrics and in their own timings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from v2td import metrics


class Stage:
    """One stage of a job's journey; its labels are looked up once, not for each job."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._in_flight = metrics.STAGE_IN_FLIGHT.labels(name)
        self._seconds = metrics.STAGE_SECONDS.labels(name)

    @contextmanager
    def under_way(self, timings: dict[str, Any]) -> Iterator[None]:
        """Count a job as being in the stage, and record the time."""
        start = time.monotonic()
        self._in_flight.inc()
        try:
            yield
        finally:
            self._in_flight.dec()
            self.record(time.monotonic() - start, timings)

    def record(self, seconds: float, timings: dict[str, Any]) -> None:
        """Record a time that was measured elsewhere."""
        timings[self._name] = round(seconds, 6)
        self._seconds.observe(seconds)
