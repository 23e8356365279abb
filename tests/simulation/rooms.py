"""What a job passes through, in virtual time: a download, a decoder, an engine with as many slots. What happens to a
job stands in its URL, so that every attempt, in any daemon, knows.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from v2td.engine import Hearing, Recognition, WindowRequest, WindowResult
from v2td.errors import ErrorClass, JobError, NoRoomError, TransientJobError
from v2td.jobs import SAMPLE_RATE, Audio, Segment, Span, Window

_SAID = re.compile(r"-seconds-([\d.]+)-fate-(\w+)")
WINDOW_SECONDS = 2.0  # that an engine takes for one


def url_of(name: str, seconds: float, fate: str) -> str:
    """Return the URL of a job that takes so long. Fates: ok, gone, flaky, unwritable, crash."""
    return f"https://host/{name}-seconds-{seconds:.2f}-fate-{fate}"


def _said(url: str) -> tuple[float, str]:
    seconds, fate = _SAID.findall(url)[0]
    return float(seconds), fate


class Rooms:
    """Downloader, decoders and engine of one daemon."""

    def __init__(self, random: Random, slots: int, trouble: float, on_heard: Callable[[str, int], None]) -> None:
        self._random = random
        self._slots = asyncio.Semaphore(slots)
        self._trouble = trouble
        self._on_heard = on_heard
        self.files = 0

    async def fetch(self, url: str, _version_id: str | None = None) -> Audio:
        """As Downloader.fetch."""
        seconds, fate = _said(url)
        await asyncio.sleep(self._random.uniform(0, 0.1))
        if fate == "gone":
            raise JobError(ErrorClass.NOT_FOUND, "gone")
        if fate == "flaky" and self._random.random() < 0.7:
            raise TransientJobError(ErrorClass.HTTP_ERROR, "503", retry_after=0.2)
        if self._random.random() < self._trouble / 4:
            raise NoRoomError("spool", "full")
        self.files += 1
        return Audio(Path(url), int(seconds * 10_000), "0" * 64, temporary=True)

    def discard(self, _audio: Audio) -> None:
        self.files -= 1

    @asynccontextmanager
    async def prepare(
        self, audio: Audio, _channels: str, _on_death: Callable[[], None], _priority: int
    ) -> AsyncIterator[Any]:
        """As Decoders.prepare."""
        seconds, _ = _said(str(audio.path))

        async def windows() -> AsyncIterator[Window]:
            for index in range(windows_of(seconds)):
                await asyncio.sleep(0.01)
                yield Window(index, (Span(index * SAMPLE_RATE, (index + 1) * SAMPLE_RATE),), ())

        yield SimpleNamespace(
            pcm=audio.path, channels=1, windows=windows(), audio_seconds=seconds, speech_seconds=seconds,
            decode_seconds=0.0, truncated=False, damage={}, release=lambda _window: None,
        )  # fmt: skip

    async def transcribe(self, hearing: Hearing) -> Recognition:
        """As Engine.transcribe: window after window, those excepted that are known."""
        seconds, fate = _said(str(hearing.pcm))
        heard: list[tuple[Window, WindowResult]] = []
        async for window in hearing.windows:
            request = WindowRequest(hearing.pcm, 1, window, hearing.options, 1, "full")
            result = hearing.known(request)
            if result is None:
                async with self._slots:
                    hearing.on_progress()
                    await asyncio.sleep(seconds / windows_of(seconds))
                    hearing.on_progress()
                if fate == "crash":
                    raise RuntimeError("a bug of ours")
                result = WindowResult(
                    (Segment(0.0, 0.5, f"w{window.index}", -0.1, 0.1, 1.0, 0.0),), "en", (), (), (), False
                )
                self._on_heard(str(hearing.pcm), window.index)
                hearing.on_heard(request, result)
            heard.append((window, result))
        return Recognition("en", None, (), tuple(heard), ())


def windows_of(seconds: float) -> int:
    """Return how many windows a recording has."""
    return 1 + int(seconds / WINDOW_SECONDS)


def text_of(seconds: float) -> str:
    """Return what is heard in a recording, each window once."""
    return " ".join(f"w{index}" for index in range(windows_of(seconds)))
