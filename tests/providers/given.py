"""Providers and recordings as tests need them: small real ones, which do what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from prometheus_client import Counter, Gauge

from v2td.errors import JobError
from v2td.jobs import SAMPLE_RATE, Audio, Heard, Options, Segment, Span, Window
from v2td.providers import EVERYTHING, Capabilities, Recording

ABLE = Capabilities(frozenset({"transcribe", "translate"}), None, EVERYTHING, split=True)


class Scripted:
    """Reads all windows, then does what the next of its `answers` says: fails with it, or hears."""

    def __init__(
        self,
        name: str = "local",
        *,
        answers: Iterable[Exception | None] = (),
        capabilities: Capabilities = ABLE,
        concurrency: int | None = 0,
        model: str | None = None,
        windows: int | None = None,
        seconds: float = 0.0,
    ) -> None:
        self.name = name
        self.model = model
        self.fingerprint = name
        self.capabilities = capabilities
        self.concurrency = concurrency
        self.jobs: list[Recording] = []
        self.trouble: str | None = None
        self.seconds = seconds
        self.open = False
        self.most = self.now = 0
        self._answers = iter(answers)
        self._windows = windows  # how many it reads before it answers; all of them when None

    async def __aenter__(self) -> Self:
        self.open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.open = False

    async def health(self) -> str | None:
        return self.trouble

    async def transcribe(self, recording: Recording) -> Heard:
        self.jobs.append(recording)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self._transcribe(recording)
        finally:
            self.now -= 1

    async def _transcribe(self, recording: Recording) -> Heard:
        heard: list[Window] = []
        if self._windows != 0:
            async for window in recording.windows:
                heard.append(window)
                recording.on_text(window, f"{self.name} {window.index}")
                recording.on_done(window)
                if len(heard) == self._windows:
                    break
        await asyncio.sleep(self.seconds)
        if (answer := next(self._answers, None)) is not None:
            raise answer
        return Heard(tuple(segment(each.index) for each in heard), tuple(heard), "en", 0.9, self.model or self.name)


def segment(start: float, end: float | None = None, text: str = "word") -> Segment:
    return Segment(start, start + 1 if end is None else end, text, -0.1, 0.0, 1.0, 0.0)


def window(index: int, seconds: float = 30) -> Window:
    length = int(seconds * SAMPLE_RATE)
    span = Span(index * length, (index + 1) * length)
    return Window(index, (span,), (span,))


class Source:
    """Windows of a recording, and what became of them."""

    def __init__(self, count: int = 3, *, seconds: float = 30, fault: JobError | None = None) -> None:
        self.windows = [window(index, seconds) for index in range(count)]
        self.taken = 0
        self.done: list[int] = []
        self.told: list[tuple[int, str]] = []
        self.gate = asyncio.Event()  # the last window comes when it is set
        self.gate.set()
        self._fault = fault

    async def _take(self) -> AsyncIterator[Window]:
        for each in self.windows:
            if each is self.windows[-1]:
                await self.gate.wait()
            await asyncio.sleep(0)
            self.taken += 1
            yield each
        if self._fault is not None:
            raise self._fault

    def recording(self, options: Options | None = None, priority: int = 5, **more: Any) -> Recording:
        return Recording(
            job=uuid4(),
            audio=Audio(Path("/dev/null"), 1000, "ab" * 32, temporary=False),
            pcm=Path("/dev/null"),
            channels=1,
            windows=self._take(),
            options=options or Options(),
            priority=priority,
            began=0.0,
            on_done=lambda each: self.done.append(each.index),
            on_text=lambda each, text: self.told.append((each.index, text)),
            **more,
        )


def counted(metric: Counter | Gauge, *labels: str) -> float:
    """Return a metric's value."""
    value: float = metric.labels(*labels)._value.get()
    return value


MADE: dict[str, Scripted] = {}  # by name: what the entry point `scripted` makes


def make(name: str, _options: Mapping[str, str]) -> Scripted:
    """Stand behind the entry point."""
    return MADE[name]


def install(folder: Path, **points: str) -> None:
    """Lay down what an installed package tells of itself; `folder` is to be on sys.path."""
    told = folder / "scripted-1.0.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: scripted\nVersion: 1.0\n")
    lines = (f"{name} = {place}\n" for name, place in points.items())
    (told / "entry_points.txt").write_text("[v2td.providers]\n" + "".join(lines))
