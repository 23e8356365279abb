"""`python -m tests.chaos.echo run --config FILE`: the daemon, with an engine that sleeps and echoes, for fast loops.

All else is real: intake, downloads, pipeline, writes, commits. The decoders decode nothing: a recording has a window
for each WINDOW_BYTES. The engine says the job's id and the number of each window. From the environment:
ECHO_SECONDS for each window, ECHO_SLOTS windows at once, and ECHO_LOG, a file that gets a line for
each window that is begun, so that work that is done again is counted.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from tests.chaos.web import WINDOW_BYTES
from v2td import cli, opening
from v2td.engine import Hearing, Recognition
from v2td.engine.batch import WindowRequest, WindowResult
from v2td.jobs import SAMPLE_RATE, Audio, Segment, Span, Window, WindowTiming
from v2td.speech import Speech

WINDOW_SECONDS = 20  # of audio; nobody hears it
PROBABILITY = 0.98


class _Room:
    """An async context manager that opens and closes nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return


class EchoDecoders(_Room):
    """A recording is speech from end to end, in as many windows as it has WINDOW_BYTES, at once."""

    def __init__(self, *_: Any) -> None:
        pass

    @asynccontextmanager
    async def prepare(
        self, audio: Audio, _channels: object, _on_death: Callable[[], None], _priority: int
    ) -> AsyncIterator[Speech]:
        """Yield the recording's windows; there is no PCM behind them."""
        count = max(1, audio.size_bytes // WINDOW_BYTES)
        speech = Speech(Path("/dev/null"))
        speech.windows = _windows(count)
        speech.audio_seconds = speech.speech_seconds = float(count * WINDOW_SECONDS)
        yield speech


class EchoEngine(_Room):
    """Says the job's id, which is its prompt, in every window; so many windows sleep at once."""

    def __init__(self, *_: Any) -> None:
        self._seconds = float(os.environ.get("ECHO_SECONDS", "0.02"))
        self._free = asyncio.Semaphore(int(os.environ.get("ECHO_SLOTS", "8")))
        self._log = os.open(
            os.environ.get("ECHO_LOG", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )

    async def run(self) -> None:
        """There is no queue to serve."""
        await asyncio.Event().wait()

    async def transcribe(self, hearing: Hearing) -> Recognition:
        """Return the echo of each window; those that are known from before a restart are not heard again."""
        windows = [window async for window in hearing.windows]
        heard = [(window, await self._hear(window, len(windows), hearing)) for window in windows]
        timings = tuple(WindowTiming(window.index, 0, 0.0, self._seconds) for window in windows)
        return Recognition("en", PROBABILITY, (), tuple(heard), timings)

    async def _hear(self, window: Window, count: int, hearing: Hearing) -> WindowResult:
        request = WindowRequest(hearing.pcm, hearing.channels, window, hearing.options, 1, "full")
        result = hearing.known(request)
        if result is None:
            async with self._free:
                hearing.on_progress()
                os.write(self._log, f"{hearing.options.prompt} {window.index} {os.getpid()}\n".encode())
                await asyncio.sleep(self._seconds)
            text = f" echo {hearing.options.prompt} {window.index}/{count}"
            segment = Segment(0.0, window.length / SAMPLE_RATE, text, -0.2, 0.01, 1.1, 0.0)
            result = WindowResult((segment,), "en", (), (), (), redone=False)
            hearing.on_heard(request, result)
        hearing.on_progress()
        hearing.on_done(window)
        return result

    def status(self) -> dict[str, Any]:
        """Nothing to say."""
        return {"slots": []}

    def stalled(self, _seconds: float) -> bool:
        """Sleep is no stall."""
        return False


async def _windows(count: int) -> AsyncIterator[Window]:
    length = WINDOW_SECONDS * SAMPLE_RATE
    for index in range(count):
        span = Span(index * length, (index + 1) * length)
        yield Window(index, (span,), (span,))


def main() -> None:
    """Run `v2td run` with the two rooms replaced."""
    for name, room in {"Decoders": EchoDecoders, "Engine": EchoEngine}.items():
        assert hasattr(opening, name), "where the daemon opens its rooms"
        setattr(opening, name, room)
    cli.main()


if __name__ == "__main__":
    main()
