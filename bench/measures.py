"""The one list of all measures, in the order they run."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.context import Context, Findings


@dataclass(frozen=True, slots=True)
class Measure:
    """One question: `module` answers it with ``async def measure(context: Context) -> Findings``.

    `keys` are what it adds to latest.json in a run of any size; with `only_full` it is no part of smaller runs.
    """

    name: str
    module: str
    keys: tuple[str, ...] = ()
    only_full: bool = False

    def load(self) -> Callable[[Context], Awaitable[Findings]]:
        """Import the module, only now: one that does not import fails alone."""
        function: Callable[[Context], Awaitable[Findings]] = importlib.import_module(self.module).measure
        return function


MEASURES: tuple[Measure, ...] = (
    Measure(
        "throughput",
        "bench.throughput",
        (
            "ratio_engine_long",
            "ratio_raw_long",
            "ratio_original_short",
            "ratio_optimized_short",
            "ratio_optimized_short_full",
            "ratio_optimized_5s",
            "ratio_optimized_long",
            "ratio_batched_long",
            "ratio_whisper_cpp_long",
            *(f"wer_long_{name}" for name in ("engine", "raw", "optimized", "batched", "whisper_cpp", "v2td_full")),
            *(f"wer_short_{name}" for name in ("original", "optimized", "v2td_full", "v2td_packed")),
            *(f"wer_5s_{name}" for name in ("optimized", "v2td_packed")),
        ),
    ),
    Measure("null_pipeline", "bench.null_pipeline", ("null_messages_per_second",)),
    Measure("writer", "bench.writer", ("writer_ratio_copy",)),
    Measure("download", "bench.download", ("download_ratio_aiohttp",)),
    Measure("objects", "bench.objects", ("objects_ratio_aiohttp",)),
    Measure("submit", "bench.submit", ("submit_p99_ms",)),
    Measure("submission", "bench.submission", ("submission_p99_ms",)),
    Measure("loop_lag", "bench.loop_lag", ("loop_lag_p999_ms",)),
    Measure("memory", "bench.memory", ("rss_growth_1e5_mib",)),
    Measure("instances", "bench.instances", ("instances_4_scaling",)),
    Measure("stages", "bench.stages"),
    Measure("waiting", "bench.waiting", only_full=True),
    Measure("slots", "bench.slots", only_full=True),
)
