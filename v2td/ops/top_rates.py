"""Rates, percentiles and percents out of what several looks saw. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from v2td.backlog import Backlog, backlog
from v2td.ops.top_daemon import daemon_figures
from v2td.ops.top_figures import (
    Figures,
    InstanceFigures,
    Jobs,
    MachineFigures,
    Messages,
    Provider,
    Topic,
)
from v2td.ops.top_seen import Away, DatabaseSeen, InstanceSeen, KafkaSeen, Look, MachineSeen, Offsets, Partition

STALE_SECONDS = 30.0  # an instance reports every 10 s
KAFKA, DATABASE = "Kafka", "Postgres"


def figures(looks: Sequence[Look], *, kafka: str, database: str, group: str) -> Figures:
    """Return what the newest of some looks (the oldest first) shows; rates are those since the oldest.

    `kafka` and `database` say where these are, without secrets.
    """
    now, earlier = looks[-1], looks[:-1]
    trouble = {name: each.reason for name, each in _sources(now).items() if isinstance(each, Away)}
    messages = _messages(now, earlier, group) if isinstance(now.kafka, KafkaSeen) else None
    database_seen = now.database if isinstance(now.database, DatabaseSeen) else None
    jobs = None if database_seen is None else _jobs(database_seen)
    instances = () if database_seen is None else _instances(database_seen, earlier)
    return Figures(
        at=datetime.fromtimestamp(now.epoch, UTC).isoformat(timespec="seconds"),
        kafka=kafka,
        database=database,
        trouble=trouble,
        reached=len(_sources(now)) - len(trouble),
        machine=_machine(now, earlier),
        messages=messages,
        jobs=jobs,
        providers=() if database_seen is None else _providers(database_seen),
        backlog=_backlog(now, messages, jobs, instances),
        instances=instances,
        daemons=tuple(
            daemon_figures(address, now.at, seen, [(each.at, each.daemons.get(address)) for each in earlier])
            for address, seen in now.daemons.items()
            if not isinstance(seen, Away)
        ),
    )


def _sources(look: Look) -> dict[str, object]:
    return {KAFKA: look.kafka, DATABASE: look.database, **look.daemons}


def _messages(now: Look, earlier: Sequence[Look], group: str) -> Messages:
    assert isinstance(now.kafka, KafkaSeen)
    partitions = now.kafka.partitions
    before, seconds = next(
        ((look.kafka.partitions, now.at - look.at) for look in earlier if isinstance(look.kafka, KafkaSeen)),
        (None, None),
    )
    topics = []
    for name in sorted({topic for topic, _ in partitions}):
        ours = {partition: offsets for partition, offsets in partitions.items() if partition[0] == name}
        came = _per_minute(ours, before, seconds, done=False)
        went = _per_minute(ours, before, seconds, done=True)
        topics.append(Topic(name, len(ours), sum(each.lag for each in ours.values()), came, went))
    return Messages(
        group=group,
        state=now.kafka.state,
        members=now.kafka.members,
        lag=sum(each.lag for each in topics),
        in_per_minute=None if before is None else math.fsum(each.in_per_minute or 0.0 for each in topics),
        out_per_minute=None if before is None else math.fsum(each.out_per_minute or 0.0 for each in topics),
        rate_seconds=seconds,
        topics=tuple(topics),
    )


def _per_minute(
    now: dict[Partition, Offsets], before: dict[Partition, Offsets] | None, seconds: float | None, *, done: bool
) -> float | None:
    """Return records that came, or were done; those of a partition that is new since then, or began anew, are not."""
    if before is None or not seconds:
        return None
    records = 0
    for partition, offsets in now.items():
        if (old := before.get(partition)) is not None:
            records += max(0, offsets.done - old.done if done else offsets.end - old.end)
    return records * 60 / seconds


def _jobs(seen: DatabaseSeen) -> Jobs:
    transcribed = sum(each.jobs for each in seen.latencies)
    failed = sum(seen.failures.values())
    per_second = transcribed / seen.window_seconds, failed / seen.failures_seconds
    return Jobs(
        window_seconds=seen.window_seconds,
        transcribed=transcribed,
        failed=failed,
        per_minute=sum(per_second) * 60,
        audio_seconds_per_second=math.fsum(each.audio_seconds for each in seen.latencies) / seen.window_seconds,
        error_rate=per_second[1] / sum(per_second) if any(per_second) else None,
        errors=seen.failures,
        last_failure=seen.last_failure,
    )


def _providers(seen: DatabaseSeen) -> tuple[Provider, ...]:
    return tuple(
        Provider(
            provider=each.provider,
            jobs=each.jobs,
            cached=each.cached,
            per_minute=each.jobs * 60 / seen.window_seconds,
            audio_seconds_per_second=each.audio_seconds / seen.window_seconds,
            p50_seconds=each.p50_seconds,
            p95_seconds=each.p95_seconds,
            p99_seconds=each.p99_seconds,
        )
        for each in seen.latencies
    )


def _instances(seen: DatabaseSeen, earlier: Sequence[Look]) -> tuple[InstanceFigures, ...]:
    return tuple(
        InstanceFigures(
            name=each.name,
            host=each.host,
            pid=each.pid,
            version=each.version,
            slots=each.slots,
            cpu_percent=None if (stale := each.ago_seconds > STALE_SECONDS) else _instance_cpu(each, earlier),
            rss_bytes=each.rss_bytes,
            partitions=each.partitions,
            seen_seconds_ago=each.ago_seconds,
            stale=stale,
        )
        for each in seen.instances
    )


def _instance_cpu(now: InstanceSeen, earlier: Sequence[Look]) -> float | None:
    """Return the CPU time between its last report and the one before that was seen."""
    for look in reversed(earlier):
        if isinstance(look.database, Away):
            continue
        for old in look.database.instances:
            if (old.name, old.host, old.pid) == (now.name, now.host, now.pid) and old.seen_epoch < now.seen_epoch:
                return max(0.0, now.cpu_seconds - old.cpu_seconds) / (now.seen_epoch - old.seen_epoch) * 100
    return None


def _machine(now: Look, earlier: Sequence[Look]) -> MachineFigures:
    machine: MachineSeen = now.machine
    percent = None
    if earlier and (seconds := now.at - earlier[-1].at) > 0:
        busy = machine.cpu_seconds - earlier[-1].machine.cpu_seconds
        percent = min(100.0, max(0.0, busy / seconds / machine.cores * 100))
    return MachineFigures(machine.cores, percent, machine.memory_bytes, machine.memory_total_bytes)


def _backlog(
    now: Look, messages: Messages | None, jobs: Jobs | None, instances: Sequence[InstanceFigures]
) -> Backlog | None:
    """Return the backlog in audio, for which both Kafka and Postgres must be there."""
    if messages is None or jobs is None or not isinstance(now.database, DatabaseSeen):
        return None
    speed = jobs.audio_seconds_per_second
    cores = math.fsum(each.cpu_percent or 0.0 for each in instances) / 100
    return backlog(messages.lag, now.database.mean_audio_seconds, speed, speed / cores if cores else None)
