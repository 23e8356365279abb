"""A job, as the engine knows it: what goes in, what comes out, and the windows on their way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from v2td.engine.batch import BatchResult, WindowRequest, WindowResult
from v2td.errors import JobError
from v2td.jobs import SAMPLE_RATE, Options, Window, WindowTiming
from v2td.language import Ballot

BYTES_PER_SAMPLE = 2
HEARD_BEFORE = -1  # the slot of a window that was heard before a restart


@dataclass(frozen=True, slots=True)
class Hearing:
    """One job for the engine. `pcm` holds interleaved int16 frames at 16 kHz.

    `began` is its time.monotonic(); `on_progress` is called whenever one of its windows starts or ends, `on_done`
    with each window whose sound is not needed any more. `known` tells what was heard in a window before a restart, if
    anything; `on_heard` is called with what is heard in each; `on_death` when a process died of this job alone, and
    may raise the JobError that it is to end with.
    """

    pcm: Path
    windows: AsyncIterator[Window]
    options: Options
    priority: int
    began: float
    on_progress: Callable[[], None]
    channels: int = 1
    on_done: Callable[[Window], None] = lambda _: None
    known: Callable[[WindowRequest], WindowResult | None] = lambda _: None
    on_heard: Callable[[WindowRequest, WindowResult], None] = lambda _request, _result: None
    on_death: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Recognition:
    """What was heard in all windows of a job.

    `language` is None when there was no window to hear it in, its probability when it was given.
    `channel_languages` tells them apart where channels were heard by themselves.
    """

    language: str | None
    language_probability: float | None
    channel_languages: tuple[tuple[int, str], ...]
    windows: tuple[tuple[Window, WindowResult], ...]
    timings: tuple[WindowTiming, ...]

    @property
    def redone_windows(self) -> int:
        """Windows that were decoded a second time."""
        return sum(result.redone for _, result in self.windows)

    @property
    def flags(self) -> tuple[str, ...]:
        """Why, each reason once, sorted."""
        return tuple(sorted({flag for _, result in self.windows for flag in result.flags}))


@dataclass(slots=True, eq=False)
class Item:
    """A window that waits or is being heard; `done` tells its result and what it cost."""

    job: int
    request: WindowRequest
    hearing: Hearing
    weight: float  # of a full window
    follows: bool  # the job has had a window before
    final: bool  # it will not be heard in another language
    queued: float  # time.monotonic()
    said: dict[str, Any]  # what the job's log lines say: lines about its windows say it too
    done: asyncio.Future[tuple[WindowResult, WindowTiming]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    crashes: int = 0
    waiting: bool = False

    @property
    def key(self) -> Hashable:
        """What shares a batch has equal keys; what was in a batch that failed goes alone."""
        return self.request.key if self.crashes == 0 else self

    @property
    def window(self) -> Window:
        """The window itself."""
        return self.request.window

    @property
    def seconds(self) -> float:
        """Seconds of audio."""
        return self.request.seconds

    @property
    def pcm_bytes(self) -> int:
        """Bytes of PCM that wait with it."""
        return self.window.length * BYTES_PER_SAMPLE * self.hearing.channels

    def resume(self) -> bool:
        """End it with what was heard before a restart; False when that is not known."""
        if (heard := self.hearing.known(self.request)) is None:
            return False
        self._settle(heard, WindowTiming(self.window.index, HEARD_BEFORE, 0.0, 0.0))
        return True

    def hear(self, heard: WindowResult, slot: int, result: BatchResult, windows: int) -> None:
        """End it with what a slot heard in it, as one of so many windows of a batch, unless its job has left."""
        if not self.done.done():
            start, seconds = result.start - self.hearing.began, result.end - result.start
            timing = WindowTiming(self.window.index, slot, start, seconds, heard.flags, windows)
            self.hearing.on_heard(self.request, heard)
            self._settle(heard, timing)
            self.hearing.on_progress()

    def _settle(self, heard: WindowResult, timing: WindowTiming) -> None:
        self.done.set_result((heard, timing))
        if self.final:
            self.hearing.on_done(self.window)

    def fail(self, error: JobError) -> None:
        """End it so, unless its job has left."""
        if not self.done.done():
            self.done.set_exception(error)

    def blame(self) -> None:
        """Tell its job that a process died of it alone, which may end it."""
        try:
            self.hearing.on_death()
        except JobError as error:
            self.fail(error)

    def raise_failure(self) -> None:
        """Raise what it ended with, if that is known and an error."""
        if self.done.done():
            self.done.result()

    def leave(self) -> None:
        """Have it matter no more."""
        if self.done.done() and not self.done.cancelled():
            self.done.exception()  # seen, so that asyncio does not complain
        self.done.cancel()

    async def ballot(self) -> Ballot:
        """Return its vote on the language, when it is heard."""
        result, _timing = await self.done
        return Ballot(result.languages, self.window.speech_length / SAMPLE_RATE)


def weight_of(items: Sequence[Item]) -> float:
    """Return the sum of weights."""
    return sum(item.weight for item in items)


def said_by(batch: Sequence[Item]) -> dict[str, Any]:
    """Return what a log line about a batch says of it."""
    return batch[0].said if len(batch) == 1 else {"windows": len(batch)}
