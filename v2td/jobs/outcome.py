"""How a job ends: as a transcript or as a failure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from v2td.errors import ErrorClass
from v2td.jobs.coordinates import Coordinates
from v2td.jobs.job import Job, Redo, Replay, SourceRecord
from v2td.jobs.sound import Segment, Window

MAX_REASON = 500  # characters


@dataclass(frozen=True, slots=True)
class Heard:
    """What a provider says of a recording; `segments` in order of start, times in seconds of the recording.

    `windows` are those that it heard, for the coverage; `timings` join those of the row. `cost` is what its owner
    charges, in the currency of the configuration.
    """

    segments: tuple[Segment, ...]
    windows: tuple[Window, ...]
    language: str | None
    language_probability: float | None
    model: str
    timings: dict[str, Any] = field(default_factory=dict)
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was heard in a whole recording; `segments` in order of start.

    `text_sha256` is the hex digest of all but the audio that decides the text: the options, the model, the provider
    and its settings. `route` says which rule chose the provider, and why others did not; `cached_from` is the row
    whose text this is.
    """

    job: Job
    audio_sha256: str
    audio_bytes: int
    audio_seconds: float
    speech_seconds: float
    covered_seconds: float  # seconds of speech for which text came
    language: str | None
    language_probability: float | None
    segments: tuple[Segment, ...]
    provider: str
    model: str
    truncated: bool
    duration_seconds: float  # processing, from the start of the download
    timings: dict[str, Any]
    text_sha256: str | None = None  # None: that of the options and the model alone
    route: dict[str, Any] | None = None
    cost: float = 0.0
    cached_from: UUID | None = None

    @property
    def text(self) -> str:
        """The segments' text in one line."""
        return " ".join(stripped for segment in self.segments if (stripped := segment.text.strip()))

    @property
    def speech_coverage_ratio(self) -> float | None:
        """Seconds of speech with text / seconds of speech; None when the recording has no speech."""
        return min(1.0, self.covered_seconds / self.speech_seconds) if self.speech_seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job, or a record that never became one, has no transcript.

    Whatever strangers had a part in it, `reason` is one printable line of at most MAX_REASON characters.
    """

    coordinates: Coordinates
    error_class: ErrorClass
    reason: str
    attempts: int
    record: SourceRecord
    job_id: str | None = None
    audio_url: str | None = None
    replay: Replay | None = None
    redo: Redo | None = None  # what failed is another revision: the transcription stays
    retried_later: bool = False  # its record waits in kafka.retry_topic: not a dead letter yet
    whole_in: Coordinates | None = None  # of the failure that keeps their record's value; never of a replay's
    trace: str | None = None  # the span that this try was, for the link of the next one
    webhook_url: str | None = None  # as a Job's
    metadata: dict[str, Any] = field(default_factory=dict)  # the job's; nothing where there never was one

    def __post_init__(self) -> None:
        if self.replay is not None:  # it comes without the record's other failures
            object.__setattr__(self, "whole_in", None)
        object.__setattr__(self, "reason", _line(self.reason))


Outcome = Transcript | Failure


def _line(text: str) -> str:
    """Return the text bounded, and with escapes for what a terminal or Postgres minds; idempotent."""
    if len(text) <= MAX_REASON and text.isprintable():
        return text
    line = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text[: MAX_REASON + 1])
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 1] + "…"
