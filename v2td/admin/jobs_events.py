"""A job's state as a stream of events, each of which is the whole state, until it has ended."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from typing import Any

from aiohttp import web

from v2td.admin.connections import Connection
from v2td.admin.jobs_desk import Desk, DeskError, Trouble
from v2td.admin.jobs_shapes import ENDS, JobState
from v2td.admin.sse import BEAT_SECONDS, Stream
from v2td.errors import ServiceError
from v2td.logs import get_logger

log = get_logger(__name__)

MAX_STREAMS = 50  # each asks Postgres once a second while its job waits
HERE_SECONDS = 0.25  # how often a job is looked at that is in this process's memory
ELSEWHERE_SECONDS = 1.0


class JobEvents:
    """Sends streams, until `stop`."""

    def __init__(self, desk: Desk, write_seconds: float) -> None:
        self._desk = desk
        self._write_seconds = write_seconds
        self._stopped = asyncio.Event()
        self._streams = 0

    def stop(self) -> None:
        """End all streams: their clients come again, here or elsewhere."""
        self._stopped.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer with the stream of a job; raises DeskError, ServiceError while nothing is sent."""
        state = await self._desk.state(request.match_info["id"])
        if state.state in ENDS and request.headers.get("Last-Event-ID") == _number(state):
            return web.Response(status=204)  # a browser's word for: do not come again
        if self._streams >= MAX_STREAMS:
            raise DeskError(Trouble.UNAVAILABLE, f"{MAX_STREAMS} streams of events are open already", 5)
        connection = request.protocol
        assert isinstance(connection, Connection)
        self._streams += 1
        connection.work = asyncio.current_task()
        try:
            stream = Stream(request, self._write_seconds, {})
            with suppress(ConnectionError):
                await stream.begin()
                await self._send(stream, state)
                await stream.end()
            return stream.response
        finally:
            connection.work = None
            self._streams -= 1

    async def _send(self, stream: Stream, state: JobState) -> None:
        told, silent = "", 0.0
        while True:
            if (number := _number(state)) != told:
                await stream.event(state.model_dump(mode="json"), "state", number)
                told, silent = number, 0.0
            if state.state in ENDS or self._stopped.is_set():
                return
            pause = HERE_SECONDS if state.progress is not None else ELSEWHERE_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopped.wait()
            silent += pause
            if silent >= BEAT_SECONDS:
                await stream.beat()
                silent = 0.0
            try:
                state = await self._desk.state(str(state.id))
            except ServiceError as error:  # Postgres is away: the stream goes on when it is back
                log.warning("events", error=str(error))
            except DeskError:  # its rows were deleted
                return


def _number(state: JobState) -> str:
    """Return what is the same for the same state, but for the time that goes by, and of an end in all instances."""
    progress = state.progress and state.progress.model_copy(update={"seconds": 0.0})
    remembered: dict[str, Any] = {}
    if state.state in ENDS:
        remembered = {"priority": None, "steps": [], "committed_seconds": None}
    content = state.model_copy(update={"progress": progress, **remembered}).model_dump_json()
    return hashlib.sha256(content.encode()).hexdigest()[:16]
