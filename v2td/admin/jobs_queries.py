"""What callers of the jobs API say in paths, queries, heads and small bodies: read strictly, and described."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar, get_args

from aiohttp import web
from pydantic import BaseModel, ValidationError

from v2td.admin.jobs_desk import DeskError, JobsWanted, TranscriptsWanted, Trouble
from v2td.admin.jobs_shapes import ENDS, State
from v2td.config.languages import LANGUAGES
from v2td.errors import ErrorClass
from v2td.formats import FORMATS
from v2td.messages.headers import TRACEPARENT
from v2td.messages.strict_json import shown

MAX_LIMIT = 500
LIMIT = 50
MAX_TEXT = 1000
MAX_REVISION = 2**31 - 1  # Postgres's integer
KEY_HEADER = "Idempotency-Key"
MAX_KEY = 255
LISTED: tuple[State, ...] = tuple(each for each in get_args(State) if each in ENDS or each == "retrying")

_KEY = re.compile(rf"[!-~]{{1,{MAX_KEY}}}")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)

S = TypeVar("S", bound=BaseModel)


def query_of(request: web.Request, known: Collection[str]) -> dict[str, str]:
    """Return the query; raises DeskError for a name that is unknown, or there twice, and for what no database takes."""
    query: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in known:
            there = ", ".join(known) or "none"
            raise _bad(f"unknown parameter {shown(name)} (there are: {there})")
        if name in query:
            raise _bad(f"{name}: given twice")
        if len(value) > MAX_TEXT or "\0" in value or not _is_unicode(value):
            raise _bad(f"{name}: text of at most {MAX_TEXT} characters, without NUL")
        query[name] = value
    return query


def jobs_wanted(request: web.Request) -> JobsWanted:
    """Return which jobs a list is to have; raises DeskError."""
    query = query_of(request, ("state", "class", "topic", "since", "until", "limit", "cursor"))
    return JobsWanted(
        state=_choice(query, "state", LISTED),
        error_class=_choice(query, "class", tuple(map(str, ErrorClass))),
        topic=query.get("topic"),
        since=_time(query, "since"),
        until=_time(query, "until"),
        limit=number(query, "limit", 1, MAX_LIMIT) or LIMIT,
        cursor=query.get("cursor"),
    )


def transcripts_wanted(request: web.Request) -> TranscriptsWanted:
    """Return which transcripts a list is to have; raises DeskError."""
    query = query_of(request, ("language", "query", "since", "until", "limit", "cursor"))
    return TranscriptsWanted(
        language=_choice(query, "language", tuple(LANGUAGES)),
        query=query.get("query"),
        since=_time(query, "since"),
        until=_time(query, "until"),
        limit=number(query, "limit", 1, MAX_LIMIT) or LIMIT,
        cursor=query.get("cursor"),
    )


def acts_wanted(request: web.Request) -> tuple[datetime | None, int, str | None]:
    """Return since when, how many, and behind which cursor; raises DeskError."""
    query = query_of(request, ("since", "limit", "cursor"))
    return _time(query, "since"), number(query, "limit", 1, MAX_LIMIT) or LIMIT, query.get("cursor")


def text_wanted(request: web.Request) -> tuple[str, int | None]:
    """Return format and revision; raises DeskError."""
    query = query_of(request, ("format", "revision"))
    return _choice(query, "format", tuple(FORMATS)) or "json", number(query, "revision", 0, MAX_REVISION)


def key_of(request: web.Request) -> str | None:
    """Return the caller's idempotency key; raises DeskError when it is none."""
    given = request.headers.getall(KEY_HEADER, [])
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise _bad(f"{KEY_HEADER}: 1 to {MAX_KEY} characters of ASCII without blanks, such as a UUID")
    return given[0]


def trace_of(request: web.Request) -> str | None:
    """Return the trace that the caller's request is part of (W3C's traceparent); what is none is as good as missing."""
    given = request.headers.getall(TRACEPARENT, [])
    return given[0] if len(given) == 1 and _TRACEPARENT.fullmatch(given[0]) else None


async def body_of(request: web.Request, shape: type[S]) -> S:
    """Return the body as what it is to be; an empty one says nothing. Raises DeskError, which names the field."""
    body = await request.read()
    try:
        return shape.model_validate_json(body or b"{}")
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(shown(str(part))[1:-1] for part in problem["loc"])
        raise DeskError(Trouble.INVALID if where else Trouble.BAD, f"{where or 'body'}: {problem['msg']}") from None


def number(query: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    """Return a parameter's number, None where it is not given; raises DeskError when it is none, or out of range."""
    if name not in query:
        return None
    if not _NUMBER.fullmatch(query[name]) or not least <= int(query[name]) <= most:
        raise _bad(f"{name}: {shown(query[name])} is no whole number from {least} to {most}")
    return int(query[name])


def _time(query: Mapping[str, str], name: str) -> datetime | None:
    if name not in query:
        return None
    text = query[name]
    problem = _bad(
        f"{name}: {shown(text)} is no RFC 3339 time with an offset, such as 2030-01-31T12:00:00Z (a + is %2B)"
    )
    if not _RFC_3339.fullmatch(text):
        raise problem
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise problem from None


T = TypeVar("T", bound=str)


def _choice(query: Mapping[str, str], name: str, choices: Collection[T]) -> T | None:
    if name not in query:
        return None
    found = next((each for each in choices if each == query[name]), None)
    if found is None:
        raise _bad(f"{name}: {shown(query[name])} is none of {', '.join(choices)}")
    return found


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bad(detail: str) -> DeskError:
    return DeskError(Trouble.BAD, detail)


def _parameter(name: str, schema: dict[str, Any], description: str, where: str = "query") -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "schema": schema, "description": description}


_TIME = {"type": "string", "format": "date-time"}
_SINCE = _parameter("since", _TIME, "None older than this.")
_UNTIL = _parameter("until", _TIME, "All older than this.")
_PAGE = (
    _parameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": LIMIT}, "At most so many."),
    _parameter("cursor", {"type": "string", "maxLength": MAX_TEXT}, "`next` of the page before."),
)
JOB = _parameter("id", {"type": "string", "minLength": 1}, "A job's id, or its message's own id.", "path")
KEY = _parameter(
    KEY_HEADER,
    {"type": "string", "pattern": f"^[!-~]{{1,{MAX_KEY}}}$"},
    "The same request with the same key is one job, however often it is sent. Of ours where it is missing.",
    "header",
)
TRACE = _parameter(TRACEPARENT, {"type": "string"}, "The caller's trace (W3C), which the job's spans join.", "header")
JOBS_QUERY = (
    _parameter("state", {"type": "string", "enum": list(LISTED)}, "What became of them."),
    _parameter("class", {"type": "string", "enum": [str(each) for each in ErrorClass]}, "Why they failed."),
    _parameter("topic", {"type": "string", "maxLength": MAX_TEXT}, "Where they came from."),
    *(_SINCE, _UNTIL, *_PAGE),
)
TRANSCRIPTS_QUERY = (
    _parameter("language", {"type": "string", "enum": list(LANGUAGES)}, "Spoken language."),
    _parameter(
        "query",
        {"type": "string", "maxLength": MAX_TEXT},
        'Words that are all said; "these words together", this or that, -without.',
    ),
    *(_SINCE, _UNTIL, *_PAGE),
)
ACTS_QUERY = (_SINCE, *_PAGE)
TEXT_QUERY = (
    _parameter("format", {"type": "string", "enum": list(FORMATS), "default": "json"}, "As which file."),
    _parameter(
        "revision",
        {"type": "integer", "minimum": 0, "maximum": MAX_REVISION},
        "Which one, 0 the first; the newest if absent.",
    ),
)
LAST_EVENT = _parameter("Last-Event-ID", {"type": "string"}, "The last event that came; browsers send it.", "header")
