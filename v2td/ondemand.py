"""Recordings that come by HTTP and not by Kafka: transcribed in the same queues, and kept nowhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import count
from uuid import uuid4

from v2td.admin import Upload
from v2td.attempt import Attempts, Journey
from v2td.config import Settings
from v2td.errors import ErrorClass, JobError
from v2td.fetch import Downloader, Incoming
from v2td.jobs import Audio, Coordinates, Job, Transcript, Window
from v2td.limit import Deadlines
from v2td.messages import Known
from v2td.progress import Journal
from v2td.stages import Trail


class OnDemand:
    """Transcribes uploads, ahead of what comes by Kafka (api.priority)."""

    def __init__(self, attempts: Attempts, downloader: Downloader, settings: Settings) -> None:
        self._attempts = attempts
        self._downloader = downloader
        self._settings = settings
        self._origin = f"api-{uuid4()}"  # so that no id is ever that of a row
        self._numbers = count()

    def receive(self) -> AbstractContextManager[Incoming]:
        """Return the context of an empty file for an upload; it stays when the block succeeds."""
        return self._downloader.incoming()

    def discard(self, audio: Audio) -> None:
        """Delete an upload."""
        self._downloader.discard(audio)

    def models(self) -> Sequence[str]:
        """Return the names of the models that may be asked for; the engine's comes first."""
        engine = self._settings.engine.model
        return (engine, *sorted(Known.of(self._settings).models - {engine}))

    async def transcribe(self, upload: Upload) -> Transcript:
        """Return what is said in an upload. Raises JobError; ServiceError when we cannot go on."""
        job = Job(
            coordinates=Coordinates(self._origin, "api", 0, next(self._numbers), int(time.time() * 1000)),
            audio_url="upload:",
            options=upload.options,
            priority=self._settings.api.priority,
            model=upload.model,
        )
        deadlines = Deadlines(self._settings.pipeline, None)
        journal = Journal(job, self._settings.engine.model, {}, 0)  # unknown to others, and so never saved
        in_order = _InOrder(upload.on_text) if upload.on_text else None
        journey = Journey(job, Trail(job), deadlines, journal, becomes_row=False)
        if in_order is not None:
            journey.on_text = in_order.put
        journey.begin()
        try:
            async with asyncio.timeout(self._settings.api.request_seconds):
                return await self._attempts.hear(journey, upload.audio)
        except TimeoutError as error:
            raise JobError(ErrorClass.TIMEOUT, "not done within api.request_seconds") from error


class _InOrder:
    """Passes texts of windows on in the order of the windows, whichever is heard first."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self._on_text = on_text
        self._next = 0
        self._early: dict[int, str] = {}

    def put(self, window: Window, text: str) -> None:
        """Take the text of a window; one that is heard again is not told again."""
        if window.index >= self._next:
            self._early[window.index] = text
        while self._next in self._early:
            if text := self._early.pop(self._next):
                self._on_text(text)
            self._next += 1
