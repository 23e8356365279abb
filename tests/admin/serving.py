"""Serves a daemon that a test can change, and speaks to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from v2td.admin import Transcriber, View
from v2td.admin.routes import Access, Route, json_answer, routes
from v2td.admin.server import serve_routes
from v2td.config import AdminSettings
from v2td.metrics import ADMIN_REJECTED

TOKEN = "a token of more than sixteen characters"
EXPOSED = {"host": "0.0.0.0", "token": TOKEN}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
STATUS: dict[str, Any] = {
    "version": "1",
    "pid": 1,
    "uptime_seconds": 1.5,
    "ready": True,
    "not_ready_because": None,
    "paused": None,
    "model": "base",
    "in_flight": 0,
    "tasks": 3,
    "database_healthy": True,
    "providers": [
        {
            "name": "local",
            "model": "base",
            "group": None,
            "weight": 1,
            "concurrency": 0,
            "in_flight": 0,
            "waiting": 0,
            "trouble": None,
            "open_seconds": None,
        }
    ],
    "partitions": [
        {
            "topic": "jobs",
            "partition": 0,
            "committed": None,
            "lag": None,
            "epoch": 1,
            "in_flight": 0,
            "oldest_unfinished_seconds": None,
        }
    ],
    "queued_windows": 0,
    "window_seconds_expected": 1.0,
    "slots": [
        {
            "slot": 0,
            "state": "idle",
            "pid": 2,
            "restarts": 0,
            "windows": 7,
            "batch": [],
            "rss_bytes": 1,
            "cpu_seconds": 1.0,
            "cpu_share": None,
        }
    ],
}


@dataclass
class Daemon:
    """What a view shows; a test changes it."""

    not_alive: str | None = None
    not_ready: str | None = None
    fault: Exception | None = None
    transcriber: Transcriber | None = None

    def view(self) -> View:
        return View(lambda: self.not_alive, lambda: self.not_ready, self.status)

    def status(self) -> dict[str, Any]:
        if self.fault is not None:
            raise self.fault
        return {**STATUS, "ready": self.not_ready is None, "not_ready_because": self.not_ready}


async def echo(request: web.Request) -> web.Response:
    """What a route that takes a body would see."""
    return json_answer({"body": (await request.read()).decode(errors="replace")})


ECHO = Route("POST", "/echo", Access.TOKEN, echo, "Say it again", {"200": {"description": "It."}})


@asynccontextmanager
async def served(daemon: Daemon, **settings: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve what the daemon does, and a route that takes a body; a client of it."""
    async with (
        serve_routes(AdminSettings(**{"port": 0, **settings}), (*routes(daemon.view()), ECHO)) as url,
        aiohttp.ClientSession(url.replace("0.0.0.0", "127.0.0.1")) as session,
    ):
        yield session


def port_of(session: aiohttp.ClientSession) -> int:
    """The port that a client of `served` speaks to."""
    assert session._base_url is not None
    assert session._base_url.port is not None
    return session._base_url.port


async def raw(session: aiohttp.ClientSession, *pieces: bytes) -> bytes:
    """The whole answer to bytes as they are, sent one piece after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(session))
    for number, piece in enumerate(pieces):
        await asyncio.sleep(0.1 if number else 0)
        writer.write(piece)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


def rejected(reason: str) -> float:
    """What the counter says."""
    return float(ADMIN_REJECTED.labels(reason)._value.get())
