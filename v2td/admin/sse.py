"""Server-sent events: a transcript as it is heard, for who does not want to wait for its end."""

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


class Events:
    """One stream of events; every write has `write_seconds`, for a client that does not read holds a place."""

    def __init__(self, request: web.Request, write_seconds: float, headers: Mapping[str, str]) -> None:
        self._request = request
        self._write_seconds = write_seconds
        self._said = ""
        self._response = web.StreamResponse(headers=headers)
        self._response.content_type = "text/event-stream"
        self._response.charset = "utf-8"
        self._response.headers["X-Accel-Buffering"] = "no"  # nginx would keep them until there is a bufferful

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

        task = asyncio.create_task(transcribing())
        try:
            await self._response.prepare(self._request)
            while (piece := await self._next(pieces)) is not None:
                await self._delta(piece)
            await self._done((await task).text)
        except RefusedError as error:
            error.told = self._response
            with contextlib.suppress(ConnectionError):
                await self._event({"error": error.error})
                await self._response.write_eof()
            raise
        except ConnectionError:
            gone = RefusedError(499, "the client is gone", result="failed")  # as nginx says it; nobody reads this
            gone.told = self._response
            raise gone from None
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # what it says now is nobody's business
        return self._response

    async def _next(self, pieces: asyncio.Queue[str | None]) -> str | None:
        while True:
            try:
                async with asyncio.timeout(BEAT_SECONDS):
                    return await pieces.get()
            except TimeoutError:
                await self._write(b": still at it\n\n")

    async def _delta(self, piece: str) -> None:
        if piece := piece.strip():
            await self._more(f" {piece}" if self._said else piece)

    async def _done(self, text: str) -> None:
        # Not all is told piece by piece: a text that was there already, or a provider that hears all at once.
        if text.startswith(self._said):
            await self._more(text[len(self._said) :])
        await self._event({"type": "transcript.text.done", "text": text})
        await self._response.write_eof()

    async def _more(self, text: str) -> None:
        if text:
            self._said += text
            await self._event({"type": "transcript.text.delta", "delta": text})

    async def _event(self, content: dict[str, Any]) -> None:
        await self._write(f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode())

    async def _write(self, content: bytes) -> None:
        try:
            async with asyncio.timeout(self._write_seconds):
                await self._response.write(content)
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionAbortedError("the client does not read") from None
