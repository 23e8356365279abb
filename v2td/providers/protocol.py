"""What a provider is: whoever turns a recording into text. The engine, whisper.cpp, an API, or somebody's package."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol
from uuid import UUID

from v2td.jobs import Audio, Heard, Options, Task, Window, options_sha256

EVERYTHING: frozenset[str] = frozenset(
    {"prompt", "hotwords", "beam_size", "condition_on_previous_text", "multilingual", "languages", "word_timestamps"}
)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do. A job that needs more goes to another one.

    `languages` None: all. `options` are the fields of Options it honours, of EVERYTHING; `split` whether channels can
    be transcribed one by one.
    """

    tasks: frozenset[Task] = frozenset({"transcribe"})
    languages: frozenset[str] | None = None
    options: frozenset[str] = frozenset()
    split: bool = False


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording on its way through a provider.

    `audio` is the file as it was fetched. `pcm` holds interleaved int16 frames of `channels` at 16 kHz and grows as
    `windows` are taken, which raises what decoding raises (JobError, NoRoomError); spans of windows count frames of it.
    Windows are of one channel when the options split channels, else the mean of all is meant.

    `on_progress` is called when a window, or a chunk, begins and ends: deadlines count from there. `on_done` is called
    with a window that will not be read again, which may free its PCM. `on_death` is called when a process of ours died
    of this recording alone; it may raise the JobError that the job is to end with. `last`: nobody else would be asked
    after this provider, so that it may wait where others would be quicker.
    """

    job: UUID
    audio: Audio
    pcm: Path
    channels: int
    windows: AsyncIterator[Window]
    options: Options
    priority: int
    began: float  # time.monotonic() of the job's begin
    on_progress: Callable[[], None] = lambda: None
    on_done: Callable[[Window], None] = lambda _window: None
    on_death: Callable[[], None] = lambda: None
    on_text: Callable[[Window, str], None] = lambda _window, _text: None  # as soon as it is heard, in any order
    last: bool = False


class Provider(Protocol):
    """Whoever transcribes. Opened with `async with` before its first call, and closed behind its last.

    `fingerprint` stands for all of its own settings that change the text, so that results may be shared. `concurrency`
    is how many jobs it takes at once; 0: as many as there are (it has a queue of its own), None: by queue depth.
    `model` is what it transcribes with, as far as that is known before it did.
    """

    @property
    def name(self) -> str:
        """Its name in the configuration, in rows and metrics."""

    @property
    def model(self) -> str | None:
        """The model's name."""

    @property
    def fingerprint(self) -> str:
        """All of its settings that change the text."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""

    @property
    def concurrency(self) -> int | None:
        """Jobs at once."""

    async def __aenter__(self) -> object:
        """Open it; raises ServiceError."""

    async def __aexit__(self, *details: object) -> None:
        """Close it."""

    async def transcribe(self, recording: Recording) -> Heard:
        """Return what is said.

        Raises ProviderRefusedError when it does not take this recording, and will not; another provider may.
        Raises ProviderFailedError when it is to blame: down, overloaded, too slow, or answering nonsense.
        Raises other JobErrors, and those of `windows`, when the recording itself is at fault: no other is asked.
        Cancellation frees whatever it holds.
        """

    async def health(self) -> str | None:
        """Say what is wrong with it; None when it is well. At most a few seconds."""


@lru_cache(maxsize=1024)  # the same for most jobs
def _text_sha256(options: Options, model: str, fingerprint: str) -> str:
    return options_sha256(options, model, fingerprint)


def text_sha256(options: Options, provider: Provider, windows: str = "") -> str:
    """Return the hex digest of all but the audio that decides the text: two equal ones may share a result.

    The name is part of it, since fingerprints of different packages may be alike. `windows` stands for the settings
    by which windows are cut, which every provider is given.
    """
    return _text_sha256(options, provider.model or "", f"{provider.name} {provider.fingerprint} {windows}")
