"""Connections: how many at once, how long they may be idle, and what is said to those who speak no HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web

from v2td.admin.answers import HEADERS, problem
from v2td.config import AdminSettings
from v2td.metrics import ADMIN_REJECTED

LINGER_SECONDS = 1.0  # for the rest of a body that nobody wants, so that its sender reads our answer


class Connection(web.RequestHandler):
    """aiohttp's, but that what is no HTTP makes no traceback in the log: anybody can send that."""

    work: asyncio.Task[object] | None = None  # for somebody who has the token: it gives way to no other connection

    def connection_lost(self, exc: BaseException | None) -> None:
        """End what is done for a client that is gone."""
        if self.work is not None:
            self.work.cancel()
        super().connection_lost(exc)

    def linger(self, seconds: float) -> None:
        """Read on for so long behind an answer: who is still sending may get to read it."""
        self._lingering_time = seconds

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be parsed, and close."""
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        ADMIN_REJECTED.labels("malformed").inc()
        response = problem(status, "not HTTP as it should be", HEADERS)
        response.force_close()
        return response


def acceptor(settings: AdminSettings, server: web.Server) -> Callable[[], Connection]:
    """Return what makes a protocol for each connection; when there are too many, the oldest gives way to it.

    Refusing the new one instead would let whoever holds them all keep a probe out.
    """
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {
        "access_log": None,
        "auto_decompress": False,  # nothing here takes it, and it would be a bomb's fuse
        "keepalive_timeout": settings.request_seconds,  # from the start, so that headers have to arrive in time too
        "lingering_time": LINGER_SECONDS,
    }

    def accept() -> Connection:
        living = [
            (connection, transport)
            for connection in server.connections
            if (transport := connection.transport) is not None and not transport.is_closing()
        ]
        if len(living) >= settings.max_connections:
            ADMIN_REJECTED.labels("connections").inc()
            idle = (transport for connection, transport in living if getattr(connection, "work", None) is None)
            next(idle, living[0][1]).abort()
        return Connection(server, loop=loop, **options)

    return accept
