"""What can be asked, and by whom: one table, from which the server, its guard and its description are made."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel

from v2td.admin.answers import problem


class Access(Enum):
    """Who may ask."""

    PROBE = auto()  # anybody, as often as they like: an orchestrator has no token, and restarts what does not answer
    OPEN = auto()  # anybody: what is the same everywhere, and tells nothing of this daemon
    STATE = auto()  # anybody on this machine; from elsewhere with the token
    TOKEN = auto()  # with the token only: it writes, or shows what was said

    def asks_for_token(self, *, local: bool) -> bool:
        """Whether the token is needed on an endpoint that only this machine reaches (`local`), or others too."""
        return self is Access.TOKEN or (self is Access.STATE and not local)


@dataclass(frozen=True, slots=True)
class View:
    """What the daemon lets be seen: `alive` and `ready` say why not, or nothing; `status` is JSON."""

    alive: Callable[[], str | None]
    ready: Callable[[], str | None]
    status: Callable[[], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation: how it is asked for, who may ask, what answers, and what OpenAPI says of its answers.

    `body` is what OpenAPI says of a body that `answer` reads by itself, however long; all others are short, and read
    before: `content` is what it says of one of those. `parameters` are those of path, query and head. `shapes` are the
    schemas that all this refers to; `error` is the one of its errors, and `refuse` makes them. `per_second` takes the
    place of admin.requests_per_second for who shows the token.
    """

    method: str
    path: str
    access: Access
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]]
    summary: str
    responses: dict[str, Any]
    body: dict[str, Any] | None = None
    content: dict[str, Any] | None = None
    parameters: tuple[dict[str, Any], ...] = ()
    shapes: tuple[type[BaseModel], ...] = ()
    error: str = "Problem"
    refuse: Callable[[int, str, Mapping[str, str] | None], web.StreamResponse] = problem
    per_second: int | None = None

    def __post_init__(self) -> None:
        """See that nothing writes without the token."""
        if self.method != "GET" and self.access is not Access.TOKEN:
            raise ValueError(f"{self.method} {self.path} writes: it takes the token")


class Table(Protocol):
    """Operations that belong together."""

    def routes(self) -> Sequence[Route]:
        """Return all of them."""

    def stop(self) -> None:
        """End what is under way: it has a second to be answered."""


def routes(view: View) -> Sequence[Route]:
    """Return all there is, but for the description itself."""
    text = {"text/plain": {"schema": {"type": "string"}}}
    measured = text | {"application/openmetrics-text": {"schema": {"type": "string"}}}
    status = {"application/json": {"schema": {"$ref": "#/components/schemas/Status"}}}
    works, hangs = ({"description": what, "content": text} for what in ("ok", "What is wrong."))
    return (
        Route("GET", "/livez", Access.PROBE, _probe(view.alive), "Is it alive?", {"200": works, "503": hangs}),
        Route("GET", "/readyz", Access.PROBE, _probe(view.ready), "Is work being done?", {"200": works, "503": hangs}),
        Route(
            *("GET", "/metrics", Access.STATE, _metrics, "Metrics for Prometheus"),
            {"200": {"description": "Prometheus' text format, or OpenMetrics by Accept.", "content": measured}},
        ),
        Route(
            *("GET", "/status", Access.STATE, _status(view), "Slots, partitions, what is under way"),
            {"200": {"description": "The daemon now.", "content": status}},
        ),
    )


def json_answer(value: Any) -> web.Response:
    """Return a value as JSON for machines and people."""
    return web.json_response(value, dumps=lambda value: json.dumps(value, indent=2, default=str))


async def _metrics(request: web.Request) -> web.Response:
    """Answer with Prometheus' text, or with OpenMetrics, which has exemplars, for who understands it."""
    try:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    except TypeError:  # a version of other things than numbers
        encode, content_type = generate_latest, CONTENT_TYPE_LATEST
    return web.Response(body=encode(REGISTRY), headers={"Content-Type": content_type})


def _probe(why_not: Callable[[], str | None]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        reason = why_not()
        return web.Response(text="ok\n") if reason is None else web.Response(status=503, text=reason + "\n")

    return answer


def _status(view: View) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        return json_answer(view.status())

    return answer
