"""The page for people at `/`: its files, its live numbers, and what it shows of a job to who has the token.

The files say nothing of this daemon and are open to all, so that a browser can load what then asks for the token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from uuid import UUID

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from v2td.admin.answers import POLICY, problem
from v2td.admin.pages import Inspecting, Unplayable, Watching
from v2td.admin.routes import Access, Route, json_answer
from v2td.admin.sse import BEAT_SECONDS, Stream
from v2td.config import AdminSettings
from v2td.errors import ServiceError
from v2td.logs import get_logger

log = get_logger(__name__)

MAX_STREAMS = 16  # browsers that look at once
MAX_RECORDINGS = 2  # fetched for listening at once
SNIFFED_BYTES = 64

INDEX = "index.html"
TYPES = MappingProxyType({".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"})

# Nothing but our own files, no inline script or style, no string that becomes HTML, nobody's frame.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
# What strangers recorded is sound, or nothing: should a browser ever take it for a document, it may do nothing.
RECORDING_POLICY = "sandbox; default-src 'none'; frame-ancestors 'none'"

_JSON = {"application/json": {"schema": {"type": "object"}}}
# A message's own id may hold what no path can.
_ANY_JOB = ({"name": "id", "in": "query", "required": True, "schema": {"type": "string"}},)
_JOB = ({"name": "job", "in": "path", "required": True, "schema": {"type": "string"}},)


class PageApi:
    """Serves the page, as long as `admin.page` says so."""

    def __init__(self, watching: Watching, inspecting: Inspecting, settings: AdminSettings) -> None:
        self._watching = watching
        self._inspecting = inspecting
        self._settings = settings
        self._files = _files()
        self._streams = 0
        self._stopped = asyncio.Event()
        self._recordings = asyncio.Semaphore(MAX_RECORDINGS)

    def routes(self) -> Sequence[Route]:
        """Return all there is."""
        page = {"200": {"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}}}
        file = {"200": {"description": "One of its files.", "content": {"*/*": {"schema": {"type": "string"}}}}}
        events = {"200": {"description": "Events.", "content": {"text/event-stream": {"schema": {"type": "string"}}}}}
        found = {"200": {"description": "What is known.", "content": _JSON}}
        sound = {"200": {"description": "The recording.", "content": {"audio/*": {}}}, "206": {"description": "Part."}}
        name = ({"name": "file", "in": "path", "required": True, "schema": {"type": "string"}},)
        return (
            Route("GET", "/", Access.OPEN, self._index, "The page for people", page),
            Route("GET", "/page/events", Access.STATE, self._events, "The daemon's numbers as they change", events),
            Route("GET", "/page/failures", Access.TOKEN, self._failures, "The last failures by class", found),
            Route("GET", "/page/job", Access.TOKEN, self._job, "All about a job", found, parameters=_ANY_JOB),
            Route(
                *("GET", "/page/jobs/{job}/audio", Access.TOKEN, self._audio, "Its recording, where it can be had"),
                *(sound,),
                parameters=_JOB,
            ),
            Route("GET", "/page/{file}", Access.OPEN, self._file, "A file of the page", file, parameters=name),
        )

    def stop(self) -> None:
        """End the streams."""
        self._stopped.set()

    async def _index(self, _request: web.Request) -> web.Response:
        return self._answer(INDEX)

    async def _file(self, request: web.Request) -> web.Response:
        return self._answer(request.match_info["file"])

    def _answer(self, name: str) -> web.Response:
        content = self._files.get(name)
        if content is None:
            return problem(404, "the page has no such file")
        return web.Response(
            body=content, content_type=TYPES[Path(name).suffix], charset="utf-8", headers={POLICY: PAGE_POLICY}
        )

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if self._streams >= MAX_STREAMS:
            return problem(503, f"{MAX_STREAMS} pages look already", {"Retry-After": "10"})
        stream = Stream(request, self._settings.request_seconds, {})
        self._streams += 1
        try:
            await stream.begin()
            await stream.event(self._watching.history(), "history")
            await self._send_samples(stream)
        except ConnectionError:  # gone
            pass
        finally:
            self._streams -= 1
        return stream.response

    async def _send_samples(self, stream: Stream) -> None:
        """Send samples until this daemon ends."""
        stopped = asyncio.create_task(self._stopped.wait())
        number = 0
        try:
            while not stopped.done():
                next_one = asyncio.create_task(self._watching.after(number))
                try:
                    done, _ = await asyncio.wait(
                        (next_one, stopped), timeout=BEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED
                    )
                finally:
                    next_one.cancel()
                if next_one in done:
                    number = next_one.result()
                    await stream.event(self._watching.told, "sample")
                elif not done:
                    await stream.beat()
        finally:
            stopped.cancel()

    async def _failures(self, _request: web.Request) -> web.Response:
        try:
            return json_answer(await self._inspecting.failures())
        except ServiceError as error:
            return _away(error)

    async def _job(self, request: web.Request) -> web.Response:
        try:
            found = await self._inspecting.job(request.query.get("id", ""))
        except ServiceError as error:
            return _away(error)
        return json_answer({"jobs": found}) if found else problem(404, "no job of this id is known here")

    async def _audio(self, request: web.Request) -> web.StreamResponse:
        try:
            job = UUID(request.match_info["job"])
        except ValueError:
            return problem(404, "no job has such an id")
        if self._recordings.locked():
            return problem(503, f"{MAX_RECORDINGS} recordings are being fetched already", {"Retry-After": "5"})
        try:
            async with self._recordings, self._inspecting.recording(job) as path:
                kind = sniffed(await asyncio.to_thread(_beginning, path))
                if kind is None:
                    return problem(415, "no browser plays recordings of this format")
                headers = {POLICY: RECORDING_POLICY, "Content-Type": kind, "Content-Disposition": "inline"}
                answer = _File(path, headers=headers)
                await answer.prepare(request)  # sends it all, as long as it is there
                return answer
        except Unplayable as error:
            return problem(error.status, str(error))
        except ServiceError as error:
            return _away(error)


class _File(web.FileResponse):
    """aiohttp's, but that it may be sent before its handler ends: it is not begun a second time."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return self._payload_writer if self.prepared else await super().prepare(request)


def _away(error: ServiceError) -> web.Response:
    log.warning("the page", error=str(error))
    return problem(503, "it cannot be looked up now: see the daemon's log", {"Retry-After": "5"})


def sniffed(beginning: bytes) -> str | None:
    """Return the type of a recording that browsers play, by its first bytes; None for anything else."""
    if beginning[:4] == b"RIFF" and beginning[8:12] == b"WAVE":
        return "audio/wav"
    if beginning[4:8] == b"ftyp":
        return "audio/mp4"
    if beginning[:3] == b"ID3" or (beginning[:1] == b"\xff" and beginning[1:2] >= b"\xe0"):
        return "audio/aac" if beginning[1:2] in {b"\xf0", b"\xf1", b"\xf8", b"\xf9"} else "audio/mpeg"
    kinds = {b"fLaC": "audio/flac", b"OggS": "audio/ogg", b"\x1a\x45\xdf\xa3": "audio/webm"}
    return kinds.get(beginning[:4])


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(SNIFFED_BYTES)


def _files() -> Mapping[str, bytes]:
    """Return the page's files by name: there are no others, whatever a path says."""
    folder = files("v2td.admin").joinpath("page")
    return {each.name: each.read_bytes() for each in folder.iterdir() if Path(each.name).suffix in TYPES}
