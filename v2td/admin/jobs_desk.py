"""What the jobs API needs of the daemon: somebody who takes jobs, knows what became of them, and passes commands on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from v2td.admin.jobs_shapes import Acts, Given, Jobs, JobState, State, Submitted, Transcripts
from v2td.formats import Document


class Trouble(Enum):
    """Why the desk does not do what it is asked; the value is the status of the answer."""

    BAD = 400  # the body is no message
    UNKNOWN = 404
    CONFLICT = 409  # the job has ended, or several are meant, or the key is being worked on
    TOO_LARGE = 413
    INVALID = 422  # a field of the body, or a key that stood for another request
    UNAVAILABLE = 503


class DeskError(Exception):
    """What the caller is told; `retry_seconds` is when it may come again, `key` the one to come again with."""

    def __init__(self, trouble: Trouble, detail: str, retry_seconds: int | None = None, key: str | None = None) -> None:
        super().__init__(trouble, detail)
        self.trouble = trouble
        self.detail = detail
        self.retry_seconds = retry_seconds
        self.key = key


@dataclass(frozen=True, slots=True)
class JobsWanted:
    """Which ended jobs are meant: those that fit all that is given."""

    state: State | None = None
    error_class: str | None = None
    topic: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class TranscriptsWanted:
    """Which transcripts are meant: those that fit all that is given; `query` is words that are said in them."""

    language: str | None = None
    query: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A transcript to be written as a file; `name` is the file's, without suffix."""

    document: Document
    name: str


class Desk(Protocol):
    """Whoever takes jobs. JOB is a row's id, or a message's own id; every method raises DeskError, or ServiceError."""

    async def submit(self, body: bytes, key: str | None, trace: str | None = None) -> tuple[Submitted, bool]:
        """Return where Kafka has the job, and whether it was there before under this key.

        `trace` is the caller's traceparent (W3C), which the job's own spans join.
        """

    async def state(self, job: str) -> JobState:
        """Return what is known of a job."""

    async def cancel(self, job: str) -> Given:
        """Ask that a job ends."""

    async def prioritise(self, job: str, priority: int) -> Given:
        """Ask that a job becomes more, or less, urgent."""

    async def replay(self, job: str) -> Given:
        """Have a failed job done again."""

    async def pause(self, instance: str | None) -> Given:
        """Ask that no more jobs are taken up; None: by nobody in the group."""

    async def resume(self, instance: str | None) -> Given:
        """Ask that jobs are taken up again."""

    async def transcript(self, job: str, revision: int | None) -> Text:
        """Return a transcript; None: its newest revision."""

    async def jobs(self, wanted: JobsWanted) -> Jobs:
        """Return a page of jobs that have ended."""

    async def transcripts(self, wanted: TranscriptsWanted) -> Transcripts:
        """Return a page of transcripts."""

    async def acts(self, since: datetime | None, limit: int, cursor: str | None) -> Acts:
        """Return a page of the audit log."""
