"""What takes the place of a room when a measure is about the others: constants, and an engine that only sleeps.

Each has the constructor and the methods that daemon and pipeline use of the real one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from v2td.engine import Hearing, Plan, Recognition
from v2td.engine.batch import WindowResult
from v2td.jobs import SAMPLE_RATE, Audio, Segment, Span, Window, WindowTiming
from v2td.speech import Speech

AUDIO_SECONDS = 5.0  # of every recording, where fetch and decode are constants

_SPAN = Span(0, int(AUDIO_SECONDS * SAMPLE_RATE))
_WINDOW = Window(0, (_SPAN,), (_SPAN,))
_AUDIO = Audio(Path("/dev/null"), 80_000, "5e" * 32, temporary=False)
_SEGMENTS = (
    Segment(0.2, 2.4, " The quick brown fox jumps over the lazy dog.", -0.21, 0.01, 1.1, 0.0),
    Segment(2.4, 4.8, " Pack my box with five dozen liquor jugs.", -0.25, 0.01, 1.1, 0.0),
)
_RESULT = WindowResult(_SEGMENTS, "en", (), (), (), redone=False)


class _Room:
    """An async context manager that opens and closes nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return


class ConstantDownloader(_Room):
    """Every URL is the same small file, at once."""

    def __init__(self, *_: Any, **_by_name: Any) -> None:
        pass

    folders = ()
    store = None  # nobody asks for files

    async def fetch(self, _url: str, _version_id: str | None = None) -> Audio:
        """Return the constant."""
        return _AUDIO

    def discard(self, _audio: Audio) -> None:
        """There is nothing to delete."""


class ConstantDecoders(_Room):
    """Every recording is AUDIO_SECONDS of speech in one window, at once."""

    def __init__(self, *_: Any) -> None:
        pass

    @asynccontextmanager
    async def prepare(self, _audio: Audio, *_: object) -> AsyncIterator[Speech]:
        """Yield the constant; there is no PCM behind it."""
        speech = Speech(Path("/dev/null"))
        speech.windows = _one_window()
        speech.audio_seconds = speech.speech_seconds = AUDIO_SECONDS
        yield speech


async def _one_window() -> AsyncIterator[Window]:
    yield _WINDOW


class SleepingEngine(_Room):
    """Hears the same two segments in every window, `factor` seconds of sleep per second of audio; 0 never sleeps.

    As many windows sleep at once as the plan has slots. `factor` is set on a subclass (`sleeping`), as the daemon
    makes the engine.
    """

    factor = 0.0

    def __init__(self, *arguments: Any) -> None:
        (plan,) = (each for each in arguments if isinstance(each, Plan))
        self._free = asyncio.Semaphore(len(plan.slots))

    async def run(self) -> None:
        """There is no queue to serve."""
        await asyncio.Event().wait()

    async def transcribe(self, hearing: Hearing) -> Recognition:
        """Return the constant for each window."""
        heard = [(window, await self._hear(window, hearing)) async for window in hearing.windows]
        timings = tuple(WindowTiming(window.index, 0, 0.0, self._seconds(window)) for window, _ in heard)
        return Recognition("en", 0.98, (), tuple(heard), timings)

    async def _hear(self, window: Window, hearing: Hearing) -> WindowResult:
        if self.factor > 0:
            async with self._free:
                hearing.on_progress()
                await asyncio.sleep(self._seconds(window))
        hearing.on_progress()
        return _RESULT

    def _seconds(self, window: Window) -> float:
        return self.factor * window.length / SAMPLE_RATE

    def status(self) -> dict[str, Any]:
        """Nothing to say."""
        return {"queued_windows": 0, "window_seconds_expected": 0.0, "slots": []}

    def stalled(self, _seconds: float) -> bool:
        """Sleep is no stall."""
        return False


def sleeping(factor: float) -> type[SleepingEngine]:
    """Return an engine class that takes `factor` seconds per second of audio."""
    return type("SleepingEngine", (SleepingEngine,), {"factor": factor})
