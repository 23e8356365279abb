"""Serves what there is to see, on loopback unless told otherwise; nothing here changes anything."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from v2td.config import AdminSettings
from v2td.errors import ServiceError
from v2td.logs import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class View:
    """What the daemon lets be seen: `alive` and `ready` say why not, or nothing; `status` is JSON."""

    alive: Callable[[], str | None]
    ready: Callable[[], str | None]
    status: Callable[[], dict[str, Any]]


@asynccontextmanager
async def serve(settings: AdminSettings, view: View) -> AsyncIterator[int]:
    """Listen while the context lasts; yields the port. ServiceError when the address cannot be had."""
    app = web.Application(client_max_size=0)
    app.add_routes(
        [
            web.get("/metrics", _metrics),
            web.get("/livez", _probe(view.alive)),
            web.get("/readyz", _probe(view.ready)),
            web.get("/status", _status(view)),
        ]
    )
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port)
        try:
            await site.start()
        except OSError as error:
            raise ServiceError(
                "listen for the admin endpoint",
                f"{settings.host}:{settings.port}: {error.strerror}",
                "set admin.port to a free one, or 0",
            ) from error
        port = int(runner.addresses[0][1])
        log.info("admin endpoint", url=f"http://{settings.host}:{port}/status")
        yield port
    finally:
        await runner.cleanup()


async def _metrics(_request: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _probe(why_not: Callable[[], str | None]) -> Callable[[web.Request], Any]:
    async def answer(_request: web.Request) -> web.Response:
        reason = why_not()
        return web.Response(text="ok\n") if reason is None else web.Response(status=503, text=reason + "\n")

    return answer


def _status(view: View) -> Callable[[web.Request], Any]:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response(view.status(), dumps=lambda value: json.dumps(value, indent=2, default=str))

    return answer
