"""What the jobs API takes and answers, for whoever fills it in and for its description in OpenAPI."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from v2td.messages.request import Request
from v2td.messages.schema import allow_nulls

State = Literal["queued", "running", "retrying", "transcribed", "failed", "cancelled", "dropped"]
ENDS: frozenset[State] = frozenset({"transcribed", "failed", "cancelled", "dropped"})


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JobMessage(Request):
    """A recording to transcribe, as in a message. null means the same as leaving a key out."""

    model_config = ConfigDict(json_schema_extra=allow_nulls)


class Links(_Shape):
    """Where to go on, as paths."""

    self: str
    events: str
    transcript: str | None = Field(description="Where it is, or will be; null: there is none.")


class Submitted(_Shape):
    """A job that Kafka has."""

    id: UUID = Field(description="The job's, in Postgres too.")
    job_id: str | None = Field(description="The message's own.")
    topic: str
    partition: int
    offset: int
    links: Links


class Progress(_Shape):
    """How far a job is, on the instance that answers."""

    stage: str | None = Field(description="Where it is; null: between two stages.")
    attempt: int
    seconds: float = Field(description="Since it was taken up here.")
    windows_known: int = Field(description="Windows of speech found so far.")
    windows_done: int = Field(description="Those of them that have a text.")
    windows_complete: bool = Field(description="Whether all windows are found.")


class Step(_Shape):
    """A stage that a job went through; seconds."""

    stage: str
    start: float = Field(description="Since the job was taken up.")
    seconds: float
    attempt: int


class Fault(_Shape):
    """Why a job failed."""

    error_class: str
    reason: str
    attempts: int


class Heard(_Shape):
    """What came of a recording, without the text."""

    revision: int
    language: str | None
    language_probability: float | None
    audio_seconds: float
    speech_seconds: float
    processing_seconds: float
    provider: str
    model: str
    task: str
    truncated: bool
    cached_from: UUID | None


class JobState(_Shape):
    """A job now."""

    id: UUID
    job_id: str | None
    state: State
    topic: str
    partition: int
    offset: int
    audio_url: str | None = Field(description="Without credentials and query.")
    priority: int | None = Field(description="null: not known here.")
    submitted_at: datetime | None = Field(description="Of a job that waits: when it came by this API.")
    ended_at: datetime | None
    position: int | None = Field(
        description="Of a queued job: records before it in its partition that are not done; null: not known."
    )
    windows_saved: int = Field(description="Of a job that is not done: windows that a restart would not lose.")
    progress: Progress | None = Field(description="null: it is not under way on this instance.")
    fault: Fault | None
    heard: Heard | None
    timings: dict[str, Any] = Field(description="Of a transcribed job: seconds by stage, and more.")
    steps: list[Step] = Field(description="Of a job that was here lately: its way.")
    committed_seconds: float | None = Field(
        description="From its being taken up here until Kafka had its offset; null: not yet, or elsewhere."
    )
    links: Links


class EndedJob(_Shape):
    """A job that has an outcome, in short."""

    id: UUID
    job_id: str | None
    state: State
    topic: str
    partition: int
    offset: int
    audio_url: str | None
    error_class: str | None
    reason: str | None
    revision: int | None
    language: str | None
    audio_seconds: float | None
    processing_seconds: float | None
    provider: str | None
    model: str | None
    ended_at: datetime
    links: Links


class Jobs(_Shape):
    """A page of jobs, the newest first."""

    data: list[EndedJob] = Field(description="May be short, or empty, though there is a next page.")
    next: str | None = Field(description="`cursor` of the next page; null: this is the last.")


class Passage(_Shape):
    """Where what was looked for is said; times in seconds of the recording."""

    start: float
    end: float
    channel: int | None
    text: str
    marks: tuple[tuple[int, int], ...] = Field(description="Which characters of the text: from, to.")


class TranscriptItem(_Shape):
    """A transcript in short."""

    id: UUID
    revision: int
    job_id: str | None
    tenant: str | None
    language: str | None
    audio_url: str
    audio_seconds: float
    provider: str
    model: str
    beginning: str | None = Field(description="The first 200 characters; null where words were looked for.")
    passages: list[Passage] = Field(description="Of a search: where they are said.")
    created_at: datetime
    links: Links


class Transcripts(_Shape):
    """A page of transcripts, the newest first."""

    data: list[TranscriptItem] = Field(description="May be short, or empty, though there is a next page.")
    next: str | None = Field(description="`cursor` of the next page; null: this is the last.")


class Act(_Shape):
    """Something that somebody changed, or tried to."""

    id: int
    at: datetime
    actor: str
    action: str
    target: str | None
    details: dict[str, Any]
    error: str | None = Field(description="Why it was not done; null: it was.")


class Acts(_Shape):
    """A page of the audit log, the newest first."""

    data: list[Act]
    next: str | None = Field(description="`cursor` of the next page; null: this is the last.")


class Change(_Shape):
    """What is to change about a job."""

    model_config = ConfigDict(strict=True, extra="forbid")
    priority: int = Field(ge=0, le=9, description="0 is most urgent.")


class Whom(_Shape):
    """Which part of the consumer group is meant."""

    model_config = ConfigDict(strict=True, extra="forbid")
    instance: str | None = Field(
        None, min_length=1, max_length=256, description="One instance, by its name in `instances`; null: all of them."
    )


class Given(_Shape):
    """A command that every instance will hear of."""

    command: int | None = Field(description="Its number; null: it needs none.")
    told: str = Field(description="What will come of it.")


JOBS_SHAPES: tuple[type[BaseModel], ...] = (
    *(JobMessage, Submitted, JobState, Jobs, Transcripts, Acts, Change, Whom, Given),
)
