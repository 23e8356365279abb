"""Server-sent events: a stream of them, and a transcript as it is heard for who does not want to wait for its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from aiohttp import web

from v2td.admin.refusals import RefusedError
from v2td.jobs import Transcript

BEAT_SECONDS = 15.0  # proxies close what says nothing for a minute

Transcribe = Callable[[Callable[[str], None]], Coroutine[Any, Any, Transcript]]


class Stream:
    """One answer that is events; every write has `write_seconds`, for a client that does not read holds a place.

    Raises ConnectionError when the client is gone, or does not read.
    """

    def __init__(self, request: web.Request, write_seconds: float, headers: Mapping[str, str]) -> None:
        self._request = request
        self._write_seconds = write_seconds
        self.response = web.StreamResponse(headers=headers)
        self.response.content_type = "text/event-stream"
        self.response.charset = "utf-8"
        self.response.headers["X-Accel-Buffering"] = "no"  # nginx would keep them until there is a bufferful

    async def begin(self) -> None:
        """Send the head."""
        await self.response.prepare(self._request)

    async def event(self, content: Any, event: str | None = None, number: str | None = None) -> None:
        """Send an event, whose name and id are lines without breaks."""
        named = f"event: {event}\n" if event else ""
        numbered = f"id: {number}\n" if number else ""
        await self._write(f"{named}{numbered}data: {json.dumps(content, ensure_ascii=False)}\n\n".encode())

    async def beat(self) -> None:
        """Send a comment, so that nobody in between takes the connection for dead."""
        await self._write(b": still at it\n\n")

    async def end(self) -> None:
        """Send the end."""
        await self.response.write_eof()

    async def _write(self, content: bytes) -> None:
        try:
            async with asyncio.timeout(self._write_seconds):
                await self.response.write(content)
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionAbortedError("the client does not read") from None


class Events:
    """The stream of a transcript that somebody waits for."""

    def __init__(self, request: web.Request, write_seconds: float, headers: Mapping[str, str]) -> None:
        self._said = ""
        self._stream = Stream(request, write_seconds, headers)

    async def send(self, transcribe: Transcribe) -> web.StreamResponse:
        """Send what `transcribe` hands over, and how it ended; raises RefusedError as it does, once that is told.

        So it does when the client is gone, or does not read. Nothing is transcribed any more then.
        """
        pieces: asyncio.Queue[str | None] = asyncio.Queue()

        async def transcribing() -> Transcript:
            try:
                return await transcribe(pieces.put_nowait)
            finally:
                pieces.put_nowait(None)

        stream = self._stream
        task = asyncio.create_task(transcribing())
        try:
            await stream.begin()
            while (piece := await self._next(pieces)) is not None:
                await self._delta(piece)
            await self._done((await task).text)
        except RefusedError as error:
            error.told = stream.response
            with contextlib.suppress(ConnectionError):
                await stream.event({"error": error.error})
                await stream.end()
            raise
        except ConnectionError:
            gone = RefusedError(499, "the client is gone", result="failed")  # as nginx says it; nobody reads this
            gone.told = stream.response
            raise gone from None
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # what it says now is nobody's business
        return stream.response

    async def _next(self, pieces: asyncio.Queue[str | None]) -> str | None:
        while True:
            try:
                async with asyncio.timeout(BEAT_SECONDS):
                    return await pieces.get()
            except TimeoutError:
                await self._stream.beat()

    async def _delta(self, piece: str) -> None:
        if piece := piece.strip():
            await self._more(f" {piece}" if self._said else piece)

    async def _done(self, text: str) -> None:
        # Not all is told piece by piece: a text that was there already, or a provider that hears all at once.
        if text.startswith(self._said):
            await self._more(text[len(self._said) :])
        await self._stream.event({"type": "transcript.text.done", "text": text})
        await self._stream.end()

    async def _more(self, text: str) -> None:
        if text:
            self._said += text
            await self._stream.event({"type": "transcript.text.delta", "delta": text})
