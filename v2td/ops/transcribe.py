"""Transcription on the spot: the daemon's decoders, scheduler and engine, without Kafka and Postgres."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from v2td.config import Settings
from v2td.engine import Engine, Hearing, plan_slots, verified_model
from v2td.errors import ErrorClass, JobError
from v2td.formats import Document
from v2td.jobs import Audio, Options, Window
from v2td.limit import PreparedLimit, max_prepared
from v2td.logs import get_logger
from v2td.ops import request
from v2td.speech import Decoders, Speech, decoder_count, to_recording

PRIORITY = 5

log = get_logger(__name__)


@dataclass(slots=True)
class _Progress:
    decoded_seconds: float = 0.0
    heard_seconds: float = 0.0


class Transcriber:
    """Decoders and engine with the model loaded; an async context manager that leaves no process and no file behind.

    Recordings lie at or below `readable`; the decoders can read nothing else.
    `on_progress` is called whenever `decoded_seconds` or `heard_seconds` have grown. Entering raises ConfigError when
    the model is not there, ServiceError when it does not load. It is a TaskGroup too: errors that leave the block come
    in an ExceptionGroup, and a slot that cannot be brought up again cancels it.
    """

    def __init__(
        self,
        settings: Settings,
        readable: Sequence[Path],
        *,
        slots: int | None = None,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._readable = readable
        self._model = verified_model(settings.engine)
        engine = settings.engine if slots is None else settings.engine.model_copy(update={"slots": slots})
        self._plan, self._refit = plan_slots(engine, self._model)
        self._prepared = PreparedLimit(max_prepared(settings, len(self._plan.slots)))
        self._on_progress = on_progress
        self._recordings: list[_Progress] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        settings = self._settings
        count = decoder_count(settings.speech, len(self._plan.slots))
        async with AsyncExitStack() as stack:
            self._decoders = await stack.enter_async_context(Decoders(settings.speech, count, self._readable))
            self._engine = await stack.enter_async_context(
                Engine(settings.engine, settings.quality, self._plan, self._model, self._refit)
            )
            group = await stack.enter_async_context(asyncio.TaskGroup())
            serving = group.create_task(self._engine.run())
            stack.callback(serving.cancel)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *details: object) -> bool | None:
        return await self._stack.__aexit__(*details)  # type: ignore[arg-type]  # they are what we were given

    @property
    def decoded_seconds(self) -> float:
        """Seconds of audio in all recordings, as far as they are decoded."""
        return sum(each.decoded_seconds for each in self._recordings)

    @property
    def heard_seconds(self) -> float:
        """Seconds of audio that are transcribed."""
        return sum(each.heard_seconds for each in self._recordings)

    async def transcribe(self, path: Path, options: Options) -> Document:
        """Return what is said in a file; raises JobError.

        Any number may run at once: as many as the settings say are decoded at a time. Cancellation leaves the
        others untouched.
        """
        audio = _audio(path)
        progress = _Progress()
        self._recordings.append(progress)
        async with (
            self._prepared.inside(PRIORITY, audio.size_bytes),
            self._decoders.prepare(audio, options.channels) as speech,
        ):
            recognition = await self._engine.transcribe(self._hearing(speech, options, progress))
        if speech.truncated:
            log.warning("damaged: not all of it could be decoded", file=str(path))
        progress.decoded_seconds = progress.heard_seconds = speech.audio_seconds
        self._on_progress()
        segments = (to_recording(each, window) for window, result in recognition.windows for each in result.segments)
        return Document(
            segments=tuple(sorted(segments, key=lambda segment: segment.start)),
            language=recognition.language,
            duration_seconds=speech.audio_seconds,
            model=self._settings.engine.model,
        )

    def _hearing(self, speech: Speech, options: Options, progress: _Progress) -> Hearing:
        windows = _Counted(speech.windows)
        changes = 0

        def on_progress() -> None:
            nonlocal changes
            changes += 1  # a window starts and ends: half of it counts for each
            progress.decoded_seconds = speech.audio_seconds
            progress.heard_seconds = speech.audio_seconds * min(1.0, changes / (2 * windows.count))
            self._on_progress()

        return Hearing(
            pcm=speech.pcm,
            channels=speech.channels,
            windows=windows,
            options=options,
            priority=PRIORITY,
            began=time.monotonic(),
            on_progress=on_progress,
            on_done=speech.release,
        )


class _Counted:
    """Windows, and how many were taken."""

    def __init__(self, windows: AsyncIterator[Window]) -> None:
        self._windows = windows
        self.count = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Window:
        window = await anext(self._windows)
        self.count += 1
        return window


def options_from(fields: Mapping[str, Any], settings: Settings) -> Options:
    """Return the options that a message with these fields would have; raises JobError."""
    value = request.message({"audio_url": "file:///here", **fields})
    return request.read(value, settings).options


async def transcribe_all(
    transcriber: Transcriber, paths: Sequence[Path], options: Options, finished: Callable[[Path, Document], None]
) -> dict[Path, JobError]:
    """Transcribe all files at once, telling each as soon as it and those before it are done; return what failed."""
    failed: dict[Path, JobError] = {}
    async with asyncio.TaskGroup() as group:
        tasks = {path: group.create_task(_outcome(transcriber, path, options)) for path in paths}
        for path, task in tasks.items():
            outcome = await task
            if isinstance(outcome, JobError):
                failed[path] = outcome
            else:
                finished(path, outcome)
    return failed


async def _outcome(transcriber: Transcriber, path: Path, options: Options) -> Document | JobError:
    try:
        return await transcriber.transcribe(path, options)
    except JobError as error:
        return error


def _audio(path: Path) -> Audio:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise JobError(ErrorClass.NOT_FOUND, f"cannot be read: {error.strerror}") from None
    if not path.is_file():
        raise JobError(ErrorClass.NOT_AUDIO, "not a regular file")
    if not os.access(path, os.R_OK):
        raise JobError(ErrorClass.ACCESS_DENIED, "cannot be read: Permission denied")
    return Audio(path.absolute(), size, sha256="", temporary=False)
