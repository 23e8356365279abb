"""Jobs by HTTP: handed in, looked up, followed, changed; transcripts as files; lists of all that; the audit log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from v2td.admin.answers import problem
from v2td.admin.jobs_desk import Desk, DeskError
from v2td.admin.jobs_events import JobEvents
from v2td.admin.jobs_queries import (
    ACTS_QUERY,
    JOB,
    JOBS_QUERY,
    KEY,
    KEY_HEADER,
    LAST_EVENT,
    TEXT_QUERY,
    TRACE,
    TRANSCRIPTS_QUERY,
    acts_wanted,
    body_of,
    jobs_wanted,
    key_of,
    query_of,
    text_wanted,
    trace_of,
    transcripts_wanted,
)
from v2td.admin.jobs_shapes import (
    JOBS_SHAPES,
    Acts,
    Change,
    Given,
    JobMessage,
    Jobs,
    JobState,
    Submitted,
    Transcripts,
    Whom,
)
from v2td.admin.routes import Access, Route
from v2td.config import AdminSettings, ApiSettings
from v2td.errors import ServiceError
from v2td.formats import FORMATS
from v2td.logs import get_logger
from v2td.metrics import SUBMISSION_SECONDS

log = get_logger(__name__)

RETRY_SECONDS = 5
LONG = 500  # segments; longer transcripts are written in a thread
REPEATED = "Idempotency-Replayed"
MEDIA_TYPES = {
    "json": "application/json",
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
    "tsv": "text/tab-separated-values",
    "md": "text/markdown",
}
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class JobsApi:
    """The API's operations, done by a desk."""

    def __init__(self, desk: Desk, api: ApiSettings, admin: AdminSettings) -> None:
        self._desk = desk
        self._events = JobEvents(desk, admin.request_seconds)
        self._per_second = api.jobs_per_second

    def routes(self) -> Sequence[Route]:
        """Return all there is."""
        job, desk = (JOB,), self._desk
        return (
            self._route("POST", "/v1/jobs", self._submit, "Hand in a recording", _SUBMITTED, (KEY, TRACE), JobMessage),
            self._route("GET", "/v1/jobs", self._jobs, "Jobs that have ended", _ok(Jobs), JOBS_QUERY),
            self._route("GET", "/v1/jobs/{id}", self._state, "A job now", _ok(JobState), job),
            self._route("DELETE", "/v1/jobs/{id}", self._cancel, "Cancel a job", _GIVEN, job),
            self._route("PATCH", "/v1/jobs/{id}", self._change, "Change a job's priority", _GIVEN, job, Change),
            self._route("POST", "/v1/jobs/{id}/replay", self._replay, "Do a failed job again", _GIVEN, job),
            self._route("GET", "/v1/jobs/{id}/events", self._follow, "Follow a job", _EVENTS, (JOB, LAST_EVENT)),
            self._route("POST", "/v1/intake/pause", self._whom(desk.pause), "Take up no more jobs", _GIVEN, (), Whom),
            self._route("POST", "/v1/intake/resume", self._whom(desk.resume), "Take up jobs again", _GIVEN, (), Whom),
            self._route(
                *("GET", "/v1/transcripts", self._transcripts, "Transcripts, and search", _ok(Transcripts)),
                TRANSCRIPTS_QUERY,
            ),
            self._route("GET", "/v1/transcripts/{id}", self._text, "A transcript", _TEXT, (JOB, *TEXT_QUERY)),
            self._route("GET", "/v1/audit", self._acts, "Who changed what", _ok(Acts), ACTS_QUERY),
        )

    def stop(self) -> None:
        """End the streams of events."""
        self._events.stop()

    def _route(  # noqa: PLR0917 (a row of the table above)
        self,
        method: str,
        path: str,
        answer: Answer,
        summary: str,
        responses: dict[str, Any],
        parameters: tuple[dict[str, Any], ...],
        body: type[BaseModel] | None = None,
    ) -> Route:
        content = None if body is None else {"required": body is not Whom, "content": _json(body)}
        return Route(
            *(method, path, Access.TOKEN, _told(answer), summary, responses),
            content=content,
            parameters=parameters,
            shapes=JOBS_SHAPES,
            per_second=self._per_second,
        )

    async def _submit(self, request: web.Request) -> web.Response:
        began = time.monotonic()
        query_of(request, ())
        submitted, repeated = await self._desk.submit(await request.read(), key_of(request), trace_of(request))
        headers = {"Location": submitted.links.self} | ({REPEATED: "true"} if repeated else {})
        SUBMISSION_SECONDS.observe(time.monotonic() - began)
        return _shaped(submitted, 200 if repeated else 202, headers)

    async def _state(self, request: web.Request) -> web.Response:
        query_of(request, ())
        return _shaped(await self._desk.state(request.match_info["id"]))

    async def _cancel(self, request: web.Request) -> web.Response:
        return _shaped(await self._desk.cancel(request.match_info["id"]), 202)

    async def _change(self, request: web.Request) -> web.Response:
        change = await body_of(request, Change)
        return _shaped(await self._desk.prioritise(request.match_info["id"], change.priority), 202)

    async def _replay(self, request: web.Request) -> web.Response:
        return _shaped(await self._desk.replay(request.match_info["id"]), 202)

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        query_of(request, ())
        return await self._events.answer(request)

    def _whom(self, do: Callable[[str | None], Awaitable[Given]]) -> Answer:
        async def answer(request: web.Request) -> web.Response:
            return _shaped(await do((await body_of(request, Whom)).instance), 202)

        return answer

    async def _jobs(self, request: web.Request) -> web.Response:
        return _shaped(await self._desk.jobs(jobs_wanted(request)))

    async def _transcripts(self, request: web.Request) -> web.Response:
        return _shaped(await self._desk.transcripts(transcripts_wanted(request)))

    async def _acts(self, request: web.Request) -> web.Response:
        return _shaped(await self._desk.acts(*acts_wanted(request)))

    async def _text(self, request: web.Request) -> web.Response:
        wanted, revision = text_wanted(request)
        text = await self._desk.transcript(request.match_info["id"], revision)
        write = FORMATS[wanted]
        if len(text.document.segments) > LONG:
            content = await asyncio.to_thread(write, text.document)
        else:
            content = write(text.document)
        return web.Response(
            text=content,
            content_type=MEDIA_TYPES.get(wanted, "text/plain"),
            charset="utf-8",
            headers={"Content-Disposition": f'attachment; filename="{text.name}.{wanted}"'},
        )


def _told(answer: Answer) -> Answer:
    """Return the operation with what goes wrong in it said to the caller."""

    async def told(request: web.Request) -> web.StreamResponse:
        try:
            return await answer(request)
        except DeskError as error:
            headers = {} if error.retry_seconds is None else {"Retry-After": str(error.retry_seconds)}
            if error.key is not None:
                headers[KEY_HEADER] = error.key
            return problem(error.trouble.value, error.detail, headers)
        except ServiceError as error:
            log.warning("jobs API", path=request.path, error=str(error))
            detail = f"it cannot be done now: {error.operation} (the daemon's log says why)"
            return problem(503, detail, {"Retry-After": str(RETRY_SECONDS)})

    return told


def _shaped(shape: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    body = shape.model_dump_json().encode() + b"\n"
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


def _json(shape: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{shape.__name__}"}}}


_FAULTS = {"5XX": {"$ref": "#/components/responses/Problem"}}


def _ok(shape: type[BaseModel], status: str = "200") -> dict[str, Any]:
    return {status: {"description": shape.__doc__ or "", "content": _json(shape)}, **_FAULTS}


def _headers(**described: str) -> dict[str, Any]:
    named = {name.replace("_", "-"): text for name, text in described.items()}
    return {"headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in named.items()}}


_SUBMITTED = _ok(Submitted, "202") | {
    "200": {
        "description": f"It was handed in before, with this {KEY_HEADER}.",
        "content": _json(Submitted),
        **_headers(Location="The job.", Idempotency_Replayed="`true`."),
    }
}
_SUBMITTED["202"] |= _headers(Location="The job.")
_GIVEN = _ok(Given, "202")
_EVENTS = {
    "200": {
        "description": "Events named `state`, each a JobState (see /v1/jobs/{id}), until the job has ended.",
        "content": {"text/event-stream": {}},  # OpenAPI 3.1 has no word for what its events are
    },
    "204": {"description": "The job has ended, and that was told: do not come again."},
    **_FAULTS,
}
_TEXT = {
    "200": {
        "description": "The file.",
        "content": {MEDIA_TYPES.get(each, "text/plain"): {"schema": {"type": "string"}} for each in FORMATS}
        | {"application/json": {"schema": {"type": "object"}}},
    },
    **_FAULTS,
}
