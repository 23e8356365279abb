"""The headers by which v2td speaks to itself through Kafka, and to whoever reads its dead letters."""

from __future__ import annotations

from uuid import UUID

from v2td.jobs import Headers

ROW_ID = "v2td-id"  # of a dead letter's failure: readers drop repetitions by it
TRUNCATED = "v2td-truncated"  # a dead letter without its record's value
REPLAY_OF = "v2td-replay-of"  # the row id of a failure: do that job once more
NOT_BEFORE = "v2td-not-before"  # milliseconds since the epoch: when a record of kafka.retry_topic is due
RETRY_ROUND = "v2td-retry-round"  # how often the job has waited there
WHOLE_RECORD = "v2td-whole-record"  # the row id of the failure whose letter and row have this one's record, too
REDO_OF = "v2td-redo-of"  # the row id of a transcription: do it again, as another revision
REVISION = "v2td-revision"  # which one
SUBMISSION = "v2td-submission"  # SHA-256 of the idempotency key by which the API was given the job
TRACE = "v2td-trace"  # the span of the try before, as Trace.told
TRACEPARENT = "traceparent"  # W3C's: the trace that whoever reads the record may join
_MAX_DIGITS = 9  # of a revision
REPLAY_HEADERS = frozenset({REPLAY_OF, NOT_BEFORE, RETRY_ROUND})
REDO_HEADERS = frozenset({REDO_OF, REVISION})


def header(headers: Headers, name: str) -> str | None:
    """Return the last value of a header as text; None when it is missing or no ASCII."""
    value = next((value for each, value in reversed(headers) if each == name), None)
    return value.decode() if value is not None and value.isascii() else None


def asks_again(headers: Headers) -> bool:
    """Whether headers claim that the record is about another one's job."""
    return any(name in (REPLAY_OF, REDO_OF) for name, _ in headers)


def redo_of(headers: Headers) -> tuple[UUID, int] | None:
    """Return which transcription, and which revision of it, headers ask for; None when they do not, or not rightly."""
    row_id, revision = header(headers, REDO_OF), header(headers, REVISION)
    if row_id is None or revision is None or not revision.isdecimal() or len(revision) > _MAX_DIGITS:
        return None
    try:
        return UUID(row_id), int(revision)
    except ValueError:
        return None


def without(headers: Headers, names: frozenset[str]) -> Headers:
    """Return the headers but for those of the names."""
    return tuple((name, value) for name, value in headers if name not in names)
