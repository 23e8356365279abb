"""What one look at each source of `v2td top` saw. Pure: no clock, no I/O; times in seconds, memory in bytes."""

from __future__ import annotations

from dataclasses import dataclass

Partition = tuple[str, int]  # topic, number
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Away:
    """A source that did not answer; `reason` is one line without secrets."""

    reason: str


@dataclass(frozen=True, slots=True)
class Offsets:
    """Of a partition: its first offset, the one behind its last record, what the group committed (None: nothing)."""

    first: int
    end: int
    committed: int | None

    @property
    def done(self) -> int:
        """The offset from which on the group has records to do: all there is while nothing is committed."""
        return min(max(self.first, self.committed or 0), self.end)

    @property
    def lag(self) -> int:
        """Records that the group has not committed."""
        return self.end - self.done


@dataclass(frozen=True, slots=True)
class KafkaSeen:
    """The consumer group: its state in Kafka's words, its members, and where it stands in each partition."""

    state: str
    members: int
    partitions: dict[Partition, Offsets]


@dataclass(frozen=True, slots=True)
class Latency:
    """Transcriptions of one provider in the window; percentiles of `duration` without those from the cache."""

    provider: str
    jobs: int
    cached: int
    audio_seconds: float
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None


@dataclass(frozen=True, slots=True)
class LastFailure:
    """The newest failure in the window."""

    error_class: str
    reason: str
    ago_seconds: float


@dataclass(frozen=True, slots=True)
class InstanceSeen:
    """A row of `instances`; `cpu_seconds` are those of the daemon and its children up to `seen_epoch`."""

    name: str
    host: str
    pid: int
    version: str
    slots: int
    cpu_seconds: float
    rss_bytes: int
    partitions: int
    seen_epoch: float
    ago_seconds: float


@dataclass(frozen=True, slots=True)
class DatabaseSeen:
    """Outcomes of the last `window_seconds` and `failures_seconds`: shorter than asked for where many came."""

    window_seconds: float
    latencies: tuple[Latency, ...]
    failures_seconds: float
    failures: dict[str, int]
    last_failure: LastFailure | None
    mean_audio_seconds: float | None
    instances: tuple[InstanceSeen, ...]


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram: its observations so far up to each bound, in rising order."""

    counts: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class SlotSeen:
    """A process that holds the model, as GET /status has it."""

    slot: int
    state: str
    windows: int
    restarts: int


@dataclass(frozen=True, slots=True)
class DaemonSeen:
    """A daemon by its admin address: what /status says, and the samples and histograms of /metrics."""

    pid: int
    version: str
    not_ready_because: str | None
    in_flight: int
    queued_windows: int
    slots: tuple[SlotSeen, ...]
    samples: dict[tuple[str, Labels], float]
    histograms: dict[tuple[str, Labels], Buckets]


@dataclass(frozen=True, slots=True)
class MachineSeen:
    """The machine that `v2td top` runs on; `cpu_seconds` are the busy ones of all its cores since it started."""

    cores: int
    cpu_seconds: float
    memory_bytes: int
    memory_total_bytes: int


@dataclass(frozen=True, slots=True)
class Look:
    """All sources at one time: `at` by a monotonic clock, `epoch` by the wall clock. None: not asked for."""

    at: float
    epoch: float
    machine: MachineSeen
    kafka: KafkaSeen | Away
    database: DatabaseSeen | Away
    daemons: dict[str, DaemonSeen | Away]  # by address
