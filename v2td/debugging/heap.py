"""What Python allocated memory for, by tracemalloc: traced from the first question on, and compared with the last."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from typing import Any

import psutil

WARNING = (
    "while allocations are traced everything takes longer and each takes memory: ask with stop=1 when you are done"
)


class Heap:
    """Traces once it is asked."""

    def __init__(self) -> None:
        self._last: tracemalloc.Snapshot | None = None
        self._lock = asyncio.Lock()

    async def told(self, top: int, *, stop: bool) -> dict[str, Any]:
        """Return the lines that allocated most since the last question, and in all; `stop` ends the tracing."""
        async with self._lock:
            rss = psutil.Process().memory_info().rss
            if not tracemalloc.is_tracing():
                if not stop:
                    tracemalloc.start()
                return {"tracing": not stop, "rss_bytes": rss, "warning": WARNING, "next": "ask again in a while"}
            traced, peak = tracemalloc.get_traced_memory()
            now = await asyncio.to_thread(tracemalloc.take_snapshot)
            grown, largest = await asyncio.to_thread(_compared, now, self._last, top)
            self._last = now
            if stop:
                tracemalloc.stop()
                self._last = None
            return {
                "tracing": not stop,
                "rss_bytes": rss,
                "traced_bytes": traced,
                "peak_traced_bytes": peak,
                "objects_the_collector_sees": len(gc.get_objects()),
                "grown": grown,
                "largest": largest,
                "warning": WARNING,
            }

    def close(self) -> None:
        """Trace no more."""
        self._last = None
        tracemalloc.stop()


def _compared(
    now: tracemalloc.Snapshot, before: tracemalloc.Snapshot | None, top: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    largest = [
        {"line": str(each.traceback), "bytes": each.size, "blocks": each.count}
        for each in now.statistics("lineno")[:top]
    ]
    if before is None:  # all that is traced came since
        return largest, largest
    grown = [
        {"line": str(each.traceback), "bytes": each.size_diff, "blocks": each.count_diff}
        for each in now.compare_to(before, "lineno")[:top]
    ]
    return grown, largest
