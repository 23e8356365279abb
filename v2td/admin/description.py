"""The description of the endpoint: OpenAPI 3.1, made of the table of routes, so that it says what is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from v2td import __version__
from v2td.admin.answers import PROBLEM_TYPE
from v2td.admin.openai_shapes import ERROR
from v2td.admin.routes import Access, Route, json_answer


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(_Shape):
    """What is wrong with a request (RFC 9457)."""

    title: str
    status: int
    detail: str


class PartitionStatus(_Shape):
    """A partition that is this instance's."""

    topic: str
    partition: int
    committed: int | None = Field(description="Committed in this assignment; null: nothing yet.")
    lag: int | None = Field(description="Records behind the end; null: not known yet.")
    epoch: int | None = Field(description="Which assignment this is.")
    in_flight: int = Field(description="Records under way.")
    oldest_unfinished_seconds: float | None = Field(description="Since that record was written; null: there is none.")


class WindowAt(_Shape):
    """A window that is being transcribed."""

    job: str | None = Field(description="Its job's id; null: it came by HTTP.")
    window: int


class SlotStatus(_Shape):
    """A process that holds the model."""

    slot: int
    state: Literal["starting", "idle", "busy", "unloaded"]
    pid: int | None
    restarts: int
    windows: int = Field(description="Transcribed since its process was started.")
    batch: list[WindowAt] = Field(description="Under way.")
    rss_bytes: int
    cpu_seconds: float = Field(description="Since its process was started.")
    cpu_share: float | None = Field(description="Of one CPU, of late; null: not known yet.")


class ProviderStatus(_Shape):
    """Somebody who transcribes."""

    name: str
    model: str | None
    group: str | None
    weight: int
    concurrency: int = Field(description="Recordings at once; 0: any number.")
    in_flight: int
    waiting: int = Field(description="Recordings that wait for a place.")
    trouble: str | None = Field(description="What its health check says; null: it is well.")
    open_seconds: float | None = Field(description="For so long it is left alone, since too much failed there.")


class Status(_Shape):
    """The daemon now; nothing of what was said."""

    version: str
    pid: int
    uptime_seconds: float
    ready: bool
    not_ready_because: str | None
    paused: str | None = Field(description="Who paused the intake, and since when; null: nobody.")
    model: str
    in_flight: int = Field(description="Records under way.")
    tasks: int = Field(description="Of the event loop.")
    database_healthy: bool
    providers: list[ProviderStatus]
    partitions: list[PartitionStatus]
    queued_windows: int
    window_seconds_expected: float | None = Field(description="Inference of the next window.")
    slots: list[SlotStatus]


def description(table: Sequence[Route], *, local: bool) -> Route:
    """Return the route that describes `table` and itself; `local`: only this machine can connect."""
    ok = {"200": {"description": "OpenAPI 3.1.", "content": {"application/json": {"schema": {"type": "object"}}}}}

    async def answer(_request: web.Request) -> web.Response:
        return json_answer(document)

    route = Route("GET", "/openapi.json", Access.STATE, answer, "This description", ok)
    document = _document((*table, route), local=local)
    return route


def _document(table: Sequence[Route], *, local: bool) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        operation = {
            "summary": route.summary,
            "security": [{"bearer": []}] if route.access.asks_for_token(local=local) else [],
            "responses": {**route.responses, "4XX": {"$ref": f"#/components/responses/{route.error}"}},
        }
        if route.parameters:
            operation["parameters"] = list(route.parameters)
        if (body := route.body or route.content) is not None:
            operation["requestBody"] = body
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    schemas: dict[str, Any] = {}
    shapes: list[type[BaseModel]] = [Problem, Status, *(shape for route in table for shape in route.shapes)]
    for shape in dict.fromkeys(shapes):
        schema = shape.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {}) | {shape.__name__: schema}
    errors = {
        name: {"description": "Refused.", "content": {media: {"schema": {"$ref": f"#/components/schemas/{name}"}}}}
        for name, media in (("Problem", PROBLEM_TYPE), (ERROR, "application/json"))
        if name in schemas
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "v2td", "version": __version__, "description": "The admin endpoint of a v2td daemon."},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": errors,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }
