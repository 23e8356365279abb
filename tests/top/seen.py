"""Looks as sources give them, for the pure parts of `v2td top`."""

from __future__ import annotations

from collections.abc import Mapping

from v2td.ops.top_seen import (
    Away,
    Buckets,
    DaemonSeen,
    DatabaseSeen,
    InstanceSeen,
    KafkaSeen,
    Labels,
    LastFailure,
    Latency,
    Look,
    MachineSeen,
    Offsets,
    Partition,
    SlotSeen,
)

AWAY = Away("not asked")
MACHINE = MachineSeen(4, 0.0, 8_000_000_000, 16_000_000_000)
ADDRESS = "http://127.0.0.1:9464"


def kafka(partitions: dict[Partition, Offsets]) -> KafkaSeen:
    return KafkaSeen("Stable", 2, partitions)


def instance(
    name: str = "a", cpu_seconds: float = 0.0, seen_epoch: float = 1000.0, ago_seconds: float = 1.0, pid: int = 7
) -> InstanceSeen:
    return InstanceSeen(name, "host", pid, "1.0", 4, cpu_seconds, 2_100_000_000, 8, seen_epoch, ago_seconds)


def database(
    *instances: InstanceSeen,
    latencies: tuple[Latency, ...] = (),
    failures: dict[str, int] | None = None,
    mean: float | None = None,
    last: LastFailure | None = None,
) -> DatabaseSeen:
    return DatabaseSeen(300.0, latencies, 300.0, failures or {}, last, mean, instances)


def daemon(
    histograms: dict[tuple[str, Labels], Buckets] | None = None,
    samples: Mapping[tuple[str, Labels], float] | None = None,
    pid: int = 7,
    slots: int = 1,
) -> DaemonSeen:
    seen = tuple(SlotSeen(number, "busy", 10, 0) for number in range(slots))
    return DaemonSeen(pid, "1.0", None, 3, 5, seen, dict(samples or {}), histograms or {})


def look(
    at: float,
    kafka: KafkaSeen | Away = AWAY,
    database: DatabaseSeen | Away = AWAY,
    daemons: Mapping[str, DaemonSeen | Away] | None = None,
    cpu_seconds: float = 0.0,
) -> Look:
    machine = MachineSeen(4, cpu_seconds, MACHINE.memory_bytes, MACHINE.memory_total_bytes)
    return Look(at, 1_000_000 + at, machine, kafka, database, dict(daemons or {}))
