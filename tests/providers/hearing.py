"""A recording on its way through a provider, decoded by a real decoder."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from tests.speech.sounds import audio
from v2td.config import SpeechSettings
from v2td.jobs import Heard, Options, Window
from v2td.providers import Recording
from v2td.speech import Decoders


@dataclass
class Told:
    """What a provider told of a recording while it heard it."""

    progress: int = 0
    deaths: int = 0
    done: list[Window] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)

    def on_progress(self) -> None:
        self.progress += 1

    def on_death(self) -> None:
        self.deaths += 1


@asynccontextmanager
async def decoding(
    folder: Path,
    path: Path,
    options: Options,
    told: Told | None = None,
    *,
    priority: int = 5,
    window_seconds: float = 30,
    on_progress: Callable[[], None] | None = None,
) -> AsyncIterator[Recording]:
    """A recording whose windows are decoded as they are taken."""
    told = told or Told()
    settings = SpeechSettings(pcm_dir=folder, window_seconds=window_seconds, jail="off")
    async with Decoders(settings, 1, [path.parent]) as decoders:
        fetched = audio(path)
        async with decoders.prepare(fetched, options.channels) as speech:
            yield Recording(
                job=uuid4(),
                audio=fetched,
                pcm=speech.pcm,
                channels=speech.channels,
                windows=speech.windows,
                options=options,
                priority=priority,
                began=time.monotonic(),
                on_progress=on_progress or told.on_progress,
                on_done=told.done.append,
                on_death=told.on_death,
                on_text=lambda window, text: told.texts.__setitem__(window.index, text),
            )


def text_of(heard: Heard) -> str:
    return " ".join(segment.text.strip() for segment in heard.segments)
