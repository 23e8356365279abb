"""Which provider would transcribe a recording, by the rules that the daemon has; nothing is sent and nothing heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from v2td.config import Settings
from v2td.errors import ErrorClass, JobError
from v2td.fetch import Downloader
from v2td.jobs import Audio
from v2td.providers import Decision, Facts, Needs
from v2td.providers.router import decide
from v2td.speech import Decoders


async def route(settings: Settings, facts: Facts, source: Path | str | None) -> tuple[Facts, Decision | Needs]:
    """Return what is decided, and on which facts; Needs where a fact is missing that `source` cannot tell.

    Size and duration of `source`, a file or a URL, are found out as the daemon does, the second only when a rule
    hinges on it. A language is not: that takes a model. Raises JobError when it cannot be fetched or is no recording.
    """
    if isinstance(source, Path) and facts.size_bytes is None:
        facts = replace(facts, size_bytes=await asyncio.to_thread(_size, source))
    found = decide(settings.routing, facts)
    if source is None or isinstance(found, Decision) or not found.facts & {"size", "seconds"}:
        return facts, found
    async with _fetched(settings, source) as (audio, readable):
        if facts.size_bytes is None:
            facts = replace(facts, size_bytes=audio.size_bytes)
            found = decide(settings.routing, facts)
        if isinstance(found, Needs) and "seconds" in found.facts:
            facts = replace(facts, seconds=await _seconds(settings, audio, readable))
            found = decide(settings.routing, facts)
    return facts, found


@asynccontextmanager
async def _fetched(settings: Settings, source: Path | str) -> AsyncIterator[tuple[Audio, tuple[Path, ...]]]:
    """A recording on this machine, and what a decoder has to be allowed to read for it."""
    if isinstance(source, Path):
        audio = _audio(source)
        yield audio, (audio.path,)
        return
    async with Downloader(settings.fetch, settings.s3) as downloader:
        audio = await downloader.fetch(source)
        try:
            yield audio, downloader.folders
        finally:
            downloader.discard(audio)


async def _seconds(settings: Settings, audio: Audio, readable: tuple[Path, ...]) -> float:
    """Return how long it lasts: decoded to its end, since headers are often wrong."""
    async with Decoders(settings.speech, 1, readable) as decoders, decoders.prepare(audio) as speech:
        async for window in speech.windows:
            speech.release(window)
        return speech.audio_seconds


def _audio(path: Path) -> Audio:
    return Audio(path.absolute(), _size(path), "", temporary=False)


def _size(path: Path) -> int:
    try:
        with path.open("rb"):
            return path.stat().st_size
    except OSError as error:
        raise JobError(ErrorClass.NOT_FOUND, f"cannot be read: {error.strerror}") from None
