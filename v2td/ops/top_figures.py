"""What `v2td top` shows, and prints as JSON. None stands for what is not known (yet); times in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from v2td.backlog import Backlog
from v2td.ops.top_seen import LastFailure


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic: records behind the group's committed offsets, and how many come and are done in a minute."""

    topic: str
    partitions: int
    lag: int
    in_per_minute: float | None
    out_per_minute: float | None


@dataclass(frozen=True, slots=True)
class Messages:
    """The consumer group as Kafka has it; sums over its topics. Rates are those of the last `rate_seconds`."""

    group: str
    state: str
    members: int
    lag: int
    in_per_minute: float | None
    out_per_minute: float | None
    rate_seconds: float | None
    topics: tuple[Topic, ...]


@dataclass(frozen=True, slots=True)
class Jobs:
    """Outcomes in Postgres within `window_seconds`; `error_rate` is 0 to 1, None where nothing ended."""

    window_seconds: float
    transcribed: int
    failed: int
    per_minute: float
    audio_seconds_per_second: float
    error_rate: float | None
    errors: dict[str, int]
    last_failure: LastFailure | None


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider within the window of `Jobs`; percentiles of the time from download to text, without cached ones."""

    provider: str
    jobs: int
    cached: int
    per_minute: float
    audio_seconds_per_second: float
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None


@dataclass(frozen=True, slots=True)
class InstanceFigures:
    """An instance of the group; CPU is 100 for each busy core, of the daemon and its children; `stale`: silent."""

    name: str
    host: str
    pid: int
    version: str
    slots: int
    cpu_percent: float | None
    rss_bytes: int
    partitions: int
    seen_seconds_ago: float
    stale: bool


@dataclass(frozen=True, slots=True)
class Stage:
    """Jobs in a stage now, and how long it took the last ones."""

    stage: str
    in_flight: int
    p50_seconds: float | None
    p95_seconds: float | None


@dataclass(frozen=True, slots=True)
class Slot:
    """A process that holds the model."""

    slot: int
    state: str
    windows: int
    restarts: int
    window_p50_seconds: float | None
    cpu_percent: float | None
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Daemon:
    """What one daemon says by its admin address; `held` is why it takes no more records, if it does not."""

    address: str
    pid: int
    version: str
    not_ready_because: str | None
    held: str | None
    in_flight: int
    queued_windows: int
    queued_audio_seconds: float
    queue_wait_p95_seconds: float | None
    loop_lag_p95_seconds: float | None
    open_providers: tuple[str, ...]
    stages: tuple[Stage, ...]
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class MachineFigures:
    """The machine that `v2td top` runs on; CPU is 0 to 100 of all its cores."""

    cores: int
    cpu_percent: float | None
    memory_bytes: int
    memory_total_bytes: int


@dataclass(frozen=True, slots=True)
class Figures:
    """All of it at one time (`at`: ISO 8601, UTC); `trouble` says of each source that is away why (its name first)."""

    at: str
    kafka: str
    database: str
    trouble: dict[str, str]
    reached: int
    machine: MachineFigures
    messages: Messages | None
    jobs: Jobs | None
    providers: tuple[Provider, ...]
    backlog: Backlog | None
    instances: tuple[InstanceFigures, ...]
    daemons: tuple[Daemon, ...]
