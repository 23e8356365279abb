"""Every setting, with its unit in its name, its default and its reason: the one definition.

config.toml and docs/configuration.md are generated from here (`reference.py`), and a test keeps them current.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from v2td.config.admin import AdminSettings
from v2td.config.inference import EngineSettings, QualitySettings, SpeechSettings
from v2td.config.kafka import KafkaSettings
from v2td.config.operators import TracingSettings, WebhookSettings
from v2td.config.providers import ProvidersSettings, RoutingSettings
from v2td.config.sources import FetchSettings, S3Settings
from v2td.config.storage import ApiSettings, CacheSettings, OutputSettings, StorageSettings
from v2td.config.values import (
    Count,
    Dsn,
    Seconds,
    Section,
)


class MessageSettings(Section):
    """What a record may look like."""

    unknown_keys: Literal["reject", "ignore"] = Field(
        "reject",
        description="A key nobody knows: refuse the job, or ignore it while a newer producer rolls out.",
    )
    max_bytes: Count = Field(
        262_144, description="Longest record value that is parsed; the longest job with all its texts takes a tenth."
    )
    max_depth: Annotated[int, Field(ge=4, le=200)] = Field(
        32, description="Levels of JSON objects and arrays in a value; a notification has 5, the rest is for metadata."
    )
    max_digits: Annotated[int, Field(ge=1, le=4300)] = Field(
        1000, description="Digits of an integer in a value: reading one takes time by the square of them."
    )
    max_entries: Count = Field(
        1000, description="Entries of one bucket notification, each of which may become a job; servers send one."
    )


class PipelineSettings(Section):
    """How much is under way at once, and how often a job is tried."""

    max_in_flight: Count = Field(
        512,
        description="Records (and jobs of one record) under way at once; beyond it partitions pause.",
    )
    max_prepared: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Jobs decoded or being transcribed at once, half of them of more than 1 MB at most; 0: 32 for each "
        "slot and 8 more, 96 for each slot where short messages share windows.",
    )
    drain_seconds: Seconds = Field(30, description="After SIGTERM, how long jobs under way may take to finish.")
    stop_seconds: Seconds = Field(10, description="After the drain, how long closing everything may take.")
    attempts: Count = Field(3, description="Tries for a job whose fault may pass.")
    retry_initial_seconds: Seconds = Field(1, description="Pause before the second attempt, before jitter.")
    retry_factor: Annotated[float, Field(ge=1)] = Field(2, description="Each pause is this many times the one before.")
    retry_max_seconds: Seconds = Field(60, description="Longest pause, also for a Retry-After.")
    attempt_seconds: Seconds = Field(
        1800, description="Start-to-close of an attempt, or twice the audio when that is longer."
    )
    job_seconds: Seconds = Field(
        2700, description="Schedule-to-close of a job, or three times the audio when that is longer."
    )
    progress_seconds: Annotated[float, Field(ge=0)] = Field(
        10,
        description="Windows of jobs that take longer are saved this often, so that a restart goes on from there; "
        "0: never.",
    )
    breaker_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        0.2, description="Intake pauses when more of the jobs fail in ways that may be our fault; 1: never."
    )
    breaker_seconds: Seconds = Field(300, description="Over this long.")
    breaker_jobs: Count = Field(50, description="Fewer jobs than this say nothing.")
    breaker_pause_seconds: Seconds = Field(
        60, description="Length of the pause; then a few jobs are tried, and each further pause is twice as long."
    )

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Shorter times do not outlast the longer ones that contain them."""
        if self.retry_max_seconds < self.retry_initial_seconds:
            yield "retry_max_seconds", f"at least retry_initial_seconds ({self.retry_initial_seconds:g})"
        if self.job_seconds < self.attempt_seconds:
            yield "job_seconds", f"at least attempt_seconds ({self.attempt_seconds:g})"


class DatabaseSettings(Section):
    """Postgres."""

    dsn: Dsn = Field(
        SecretStr("postgresql://localhost/v2td"),
        description="Where rows go: postgresql://user:password@host/name; over a network with "
        "?sslmode=verify-full&sslrootcert=/path/ca.pem, since without it nobody checks whom the password goes to.",
    )
    read_dsn: Dsn | None = Field(None, description="A replica for look-ups; the DSN above when unset.")
    pool_min: Annotated[int, Field(ge=0)] = Field(2, description="Connections kept open (DB_POOL_SIZE).")
    pool_max: Count = Field(10, description="Most connections (DB_POOL_SIZE + DB_MAX_OVERFLOW).")
    recycle_seconds: Seconds = Field(300, description="Idle connections are closed after this.")
    connect_seconds: Seconds = Field(10, description="Longest wait for a connection.")
    statement_seconds: Seconds = Field(60, description="Longest statement.")
    flush_rows: Count = Field(1000, description="Outcomes written in one transaction at most.")
    flush_seconds: Seconds = Field(0.05, description="How long an outcome may wait for company.")
    migrate_on_start: bool = Field(True, description="Bring the schema up to date at start.")
    partitions_ahead: Annotated[int, Field(ge=1, le=120)] = Field(
        3, description="Months of transcript_segments partitions made ahead."
    )

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """The pool holds what it keeps open, and two at least: one writes while another looks up."""
        if self.pool_max < max(self.pool_min, 2):
            yield "pool_max", f"at least 2 and at least pool_min ({self.pool_min})"


class LogSettings(Section):
    """Logs on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least important level shown.")
    format: Literal["auto", "console", "json"] = Field("auto", description="auto: console on a terminal, else JSON.")


class TestingSettings(Section):
    """For tests of the daemon itself; leave as it is."""

    failpoints: bool = Field(
        False, description="Obey the variable V2TD_FAILPOINTS, which makes the daemon die, hang or fail on purpose."
    )


class Settings(Section):
    """The whole of config.toml."""

    kafka: KafkaSettings = KafkaSettings()
    messages: MessageSettings = MessageSettings()
    pipeline: PipelineSettings = PipelineSettings()
    fetch: FetchSettings = FetchSettings()
    s3: S3Settings = S3Settings()
    speech: SpeechSettings = SpeechSettings()
    engine: EngineSettings = EngineSettings()
    quality: QualitySettings = QualitySettings()
    providers: ProvidersSettings = ProvidersSettings()
    routing: RoutingSettings = RoutingSettings()
    cache: CacheSettings = CacheSettings()
    output: OutputSettings = OutputSettings()
    storage: StorageSettings = StorageSettings()
    database: DatabaseSettings = DatabaseSettings()
    admin: AdminSettings = AdminSettings()
    api: ApiSettings = ApiSettings()
    webhooks: WebhookSettings = WebhookSettings()
    tracing: TracingSettings = TracingSettings()
    log: LogSettings = LogSettings()
    testing: TestingSettings = TestingSettings()

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """A hung process is found before the attempt that waits for it gives up."""
        attempt = self.pipeline.attempt_seconds
        window = self.engine.window_seconds_base + self.engine.window_seconds_factor * self.speech.window_seconds
        if window > attempt:
            parts = "engine.window_seconds_base + engine.window_seconds_factor * speech.window_seconds"
            yield "pipeline.attempt_seconds", f"at least the deadline of the longest window ({window:g}: {parts})"
        if self.speech.deadline_seconds > attempt:
            yield "speech.deadline_seconds", f"at most pipeline.attempt_seconds ({attempt:g})"
        if self.fetch.total_seconds > attempt:
            yield "fetch.total_seconds", f"at most pipeline.attempt_seconds ({attempt:g})"
        if unknown := sorted({*self.routing.named} - self.providers.targets):
            known = ", ".join(sorted(self.providers.targets))
            yield "routing.rules", f"rules, default and fallback that name {known}: {unknown[0]} is not configured"
        if self.api.openai:
            yield from self._api_contradictions()

    def _api_contradictions(self) -> Iterator[tuple[str, str]]:
        """The API is served by the admin endpoint, with its token, and leaves connections to others."""
        if not self.admin.enabled:
            yield "api.openai", "false while admin.enabled is false"
        if self.admin.token is None:
            yield "api.openai", "false, or admin.token set (openssl rand -hex 32)"
        if self.admin.max_connections <= self.api.concurrency:
            yield "admin.max_connections", f"more than api.concurrency ({self.api.concurrency})"
