"""`/debug/…`, as Go's pprof: profiles, the heap, tasks, children, the loop; on this machine and with the token only.

Names of functions, files, tasks and processes are shown, and never the value of a variable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, get_args

from aiohttp import web

from v2td.admin.answers import problem
from v2td.admin.routes import Access, Route, json_answer

Form = Literal["html", "speedscope", "text"]

MAX_SECONDS = 60
DEFAULT_SECONDS = 10
MAX_TOP = 500
DEFAULT_TOP = 30

TYPES: dict[Form, str] = {"html": "text/html", "speedscope": "application/json", "text": "text/plain"}
SUFFIXES: dict[Form, str] = {"html": "html", "speedscope": "speedscope.json", "text": "txt"}


class CannotTellError(Exception):
    """What was asked for cannot be had: the status of the answer, and why."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile in the form asked for, and what made it."""

    content: str
    made_by: str


class Debugger(Protocol):
    """Whoever looks into the daemon; all of it is JSON, bounded, and free of what was said."""

    def processes(self) -> Sequence[str]:
        """Return the names of what may be profiled: `loop`, `slot-0`, `decoder-0` and so on."""

    async def profile(self, of: str, seconds: float, form: Form) -> Profile:
        """Return what one did for so long; CannotTellError while another profile is made, or without samples."""

    async def heap(self, top: int, *, stop: bool) -> dict[str, Any]:
        """Begin to trace allocations, then return what grew since the call before; `stop` ends it."""

    def tasks(self) -> dict[str, Any]:
        """Return all tasks of the loop, with their stacks and ages."""

    async def slots(self) -> dict[str, Any]:
        """Return all children, and where each of them is."""

    def loop(self) -> dict[str, Any]:
        """Return how late the loop was, and what ran when it was very late."""


class DebugApi:
    """Serves what a Debugger tells."""

    def __init__(self, debugger: Debugger) -> None:
        self._debugger = debugger

    def routes(self) -> Sequence[Route]:
        """Return all there is."""
        found = {
            "200": {"description": "What was found.", "content": {"application/json": {"schema": {"type": "object"}}}}
        }
        bad = {"400": {"description": "A parameter is none."}}
        content = {each: {"schema": {"type": "string"}} for each in TYPES.values()}
        profiled = {
            "200": {"description": "The profile.", "content": content},
            "404": {"description": "There is no such process."},
            "409": {"description": "Another profile is being made."},
            "503": {"description": "The process gave no samples."},
        }
        words = {"type": "string"}
        of = _query("of", words, "`loop`, or one of the processes that /debug/slots names: `slot-0`, `decoder-0`")
        asked = (
            _query("seconds", {"type": "integer", "minimum": 1, "maximum": MAX_SECONDS, "default": DEFAULT_SECONDS}),
            _query("format", {**words, "enum": list(TYPES), "default": "html"}),
            of,
        )
        top = _query("top", {"type": "integer", "minimum": 1, "maximum": MAX_TOP, "default": DEFAULT_TOP})
        stop = _query("stop", {**words, "enum": ["0", "1"], "default": "0"}, "1: trace no more")
        method, access = "GET", Access.TOKEN
        return (
            Route(
                *(method, "/debug/profile", access, self._profile, "What the loop or a child does"),
                *(profiled | bad,),
                parameters=asked,
            ),
            Route(
                *(method, "/debug/heap", access, self._heap, "What memory was allocated for since the last call"),
                *(found | bad,),
                parameters=(top, stop),
            ),
            Route(method, "/debug/tasks", access, self._tasks, "All tasks of the event loop", found),
            Route(method, "/debug/slots", access, self._slots, "All child processes, and where they are", found),
            Route(method, "/debug/loop", access, self._loop, "How late the event loop was, and why", found),
        )

    def stop(self) -> None:
        """Do nothing: a profile that is being made is given up with its request."""

    async def _profile(self, request: web.Request) -> web.Response:
        seconds = _number(request, "seconds", DEFAULT_SECONDS, MAX_SECONDS)
        form = request.query.get("format", "html")
        if form not in get_args(Form):
            raise web.HTTPBadRequest(text=f"format: one of {', '.join(TYPES)}")
        chosen = cast("Form", form)
        of = request.query.get("of", "loop")
        if of not in self._debugger.processes():
            return problem(404, f"of: one of {', '.join(self._debugger.processes())}")
        try:
            profile = await self._debugger.profile(of, seconds, chosen)
        except CannotTellError as error:
            return problem(error.status, error.detail)
        name = f"v2td-{of}.{SUFFIXES[chosen]}"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-V2td-Made-By": profile.made_by}
        return web.Response(text=profile.content, content_type=TYPES[chosen], charset="utf-8", headers=headers)

    async def _heap(self, request: web.Request) -> web.Response:
        top = _number(request, "top", DEFAULT_TOP, MAX_TOP)
        stop = request.query.get("stop", "0")
        if stop not in ("0", "1"):
            raise web.HTTPBadRequest(text="stop: 0 or 1")
        try:
            return json_answer(await self._debugger.heap(top, stop=stop == "1"))
        except CannotTellError as error:
            return problem(error.status, error.detail)

    async def _tasks(self, _request: web.Request) -> web.Response:
        return json_answer(self._debugger.tasks())

    async def _slots(self, _request: web.Request) -> web.Response:
        return json_answer(await self._debugger.slots())

    async def _loop(self, _request: web.Request) -> web.Response:
        return json_answer(self._debugger.loop())


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= most):
        raise web.HTTPBadRequest(text=f"{name}: a whole number from 1 to {most}")
    return int(text)


def _query(name: str, schema: dict[str, Any], description: str = "") -> dict[str, Any]:
    found = {"name": name, "in": "query", "required": False, "schema": schema}
    return found | {"description": description} if description else found
