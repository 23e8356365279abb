"""How late the event loop is, and where its thread stands meanwhile: a thread beside it looks when it misses a beat."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from v2td import metrics
from v2td.sampling import Stack, main_stack

BEAT_SECONDS = 0.05
LATE_SECONDS = 0.1
KEPT = 100  # times that it was late
LOOKS = 20  # at each of them
SHOWN_FRAMES = 30  # innermost ones


@dataclass(frozen=True, slots=True)
class Stall:
    """The loop ran nothing else for `seconds`; it ended at `at`, a time.time(). `seen`: stacks, and how often each."""

    at: float
    seconds: float
    seen: Counter[Stack]


class LoopWatch:
    """Measures one loop, which runs in the main thread."""

    def __init__(self) -> None:
        self._beat = time.monotonic()
        self._seen: list[Stack] = []
        self._stalls: deque[Stall] = deque(maxlen=KEPT)
        self._count = 0

    async def run(self) -> None:
        """Watch until cancelled."""
        ended = threading.Event()
        self._beat = time.monotonic()
        threading.Thread(target=self._look, args=(ended,), name="loop watch", daemon=True).start()
        try:
            while True:
                await asyncio.sleep(BEAT_SECONDS)
                now = time.monotonic()
                late, self._beat = now - self._beat - BEAT_SECONDS, now
                seen, self._seen = self._seen, []
                if late > LATE_SECONDS:
                    self._count += 1
                    self._stalls.append(Stall(time.time(), late, Counter(seen)))
        finally:
            ended.set()

    def told(self) -> dict[str, Any]:
        """Return the histogram since the daemon began, and the last times at which the loop was very late."""
        return {
            "lag_seconds": _histogram(),
            "late_above_seconds": LATE_SECONDS,
            "times_late": self._count,
            "stalls": [_told(each) for each in reversed(self._stalls)],
        }

    def _look(self, ended: threading.Event) -> None:
        while not ended.wait(BEAT_SECONDS):
            if time.monotonic() - self._beat - BEAT_SECONDS > LATE_SECONDS and len(self._seen) < LOOKS:
                self._seen.append(main_stack())


def _told(stall: Stall) -> dict[str, Any]:
    return {
        "ended": datetime.fromtimestamp(stall.at, UTC).isoformat(timespec="milliseconds"),
        "seconds": round(stall.seconds, 3),
        "seen": [
            {"times": times, "stack": [str(place) for place in stack[-SHOWN_FRAMES:]]}
            for stack, times in stall.seen.most_common()
        ],
    }


def _histogram() -> dict[str, Any]:
    (family,) = metrics.LOOP_LAG.collect()
    buckets = {each.labels["le"]: int(each.value) for each in family.samples if each.name.endswith("_bucket")}
    (total,) = (each.value for each in family.samples if each.name.endswith("_sum"))
    return {"up_to": buckets, "sum": round(total, 3)}
