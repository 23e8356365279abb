"""The figures of one daemon out of what its admin address told at several times. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from v2td.ops.top_figures import Daemon, Slot, Stage
from v2td.ops.top_seen import Away, Buckets, DaemonSeen, Labels

STAGES = ("queue", "fetch", "prepare", "transcribe", "write")  # in their order; others come behind
HELD = {  # gauges that are 1 while no more records are taken
    "v2td_intake_stopped": "somebody paused it",
    "v2td_circuit_open": "too many jobs fail",
    "v2td_kafka_paused": "enough is under way",
}


def daemon_figures(
    address: str, at: float, now: DaemonSeen, earlier: Sequence[tuple[float, DaemonSeen | Away | None]]
) -> Daemon:
    """Return what it does `at` that time; percentiles are those since the oldest of the `earlier` looks at it.

    Where nothing was observed since then, they are those since the daemon started.
    """
    same = [(when, each) for when, each in earlier if isinstance(each, DaemonSeen) and each.pid == now.pid]
    oldest = same[0][1] if same else None

    def quantile(part: float, name: str, labels: Labels = ()) -> float | None:
        buckets = now.histograms.get((name, labels))
        if buckets is None:
            return None
        before = None if oldest is None else oldest.histograms.get((name, labels))
        found = None if before is None else bucket_quantile(part, _increase(buckets, before))
        return bucket_quantile(part, buckets) if found is None else found

    def of_stage(stage: str) -> Stage:
        labels = (("stage", stage),)
        name = "v2td_stage_seconds"
        in_flight = int(now.samples.get(("v2td_stage_in_flight", labels), 0))
        return Stage(stage, in_flight, quantile(0.5, name, labels), quantile(0.95, name, labels))

    stages = {dict(labels)["stage"] for name, labels in now.histograms if name == "v2td_stage_seconds"}
    slots = []
    for each in now.slots:
        labels = (("slot", str(each.slot)),)
        cpu = _cpu_percent(at, now, same, labels)
        rss = int(now.samples.get(("v2td_slot_rss_bytes", labels), 0))
        median = quantile(0.5, "v2td_window_seconds", labels)
        slots.append(Slot(each.slot, each.state, each.windows, each.restarts, median, cpu, rss))
    return Daemon(
        address=address,
        pid=now.pid,
        version=now.version,
        not_ready_because=now.not_ready_because,
        held=next((why for name, why in HELD.items() if now.samples.get((name, ()))), None),
        in_flight=now.in_flight,
        queued_windows=now.queued_windows,
        queued_audio_seconds=max(0.0, round(now.samples.get(("v2td_backlog_audio_seconds", ()), 0.0), 3)),
        queue_wait_p95_seconds=quantile(0.95, "v2td_queue_wait_seconds"),
        loop_lag_p95_seconds=quantile(0.95, "v2td_loop_lag_seconds"),
        open_providers=tuple(
            dict(labels)["provider"]
            for (name, labels), value in sorted(now.samples.items())
            if name == "v2td_provider_open" and value
        ),
        stages=tuple(of_stage(each) for each in sorted(stages, key=_order)),
        slots=tuple(slots),
    )


def _order(stage: str) -> tuple[int, str]:
    return (STAGES.index(stage) if stage in STAGES else len(STAGES)), stage


def _cpu_percent(
    at: float, now: DaemonSeen, earlier: Sequence[tuple[float, DaemonSeen]], labels: Labels
) -> float | None:
    """Return what a slot's process took since the oldest look; a process that is new since then began at nothing."""
    key = "v2td_slot_cpu_seconds", labels
    if not earlier or key not in now.samples or at <= earlier[0][0]:
        return None
    since, before = earlier[0]
    used = now.samples[key] - before.samples.get(key, 0.0)
    return (used if used >= 0 else now.samples[key]) / (at - since) * 100


def _increase(now: Buckets, before: Buckets) -> Buckets:
    old = dict(before.counts)
    return Buckets(tuple((bound, max(0.0, count - old.get(bound, 0.0))) for bound, count in now.counts))


def bucket_quantile(part: float, buckets: Buckets) -> float | None:
    """Return the value below which a `part` of the observations lies, as Prometheus' histogram_quantile does.

    Within a bucket they are taken as evenly spread; beyond the last bound it is that bound. None: nothing observed.
    """
    total = buckets.counts[-1][1] if buckets.counts else 0.0
    if total <= 0:
        return None
    rank = part * total
    low, below = 0.0, 0.0
    for bound, count in buckets.counts:
        if count >= rank and count > below:
            return low if math.isinf(bound) else low + (bound - low) * (rank - below) / (count - below)
        low, below = (low if math.isinf(bound) else bound), count
    return low
