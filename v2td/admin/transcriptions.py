"""What the transcription API needs of the daemon: a place for uploads, and somebody who transcribes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from v2td.jobs import Audio, Options, Transcript


@dataclass(frozen=True, slots=True)
class Upload:
    """A recording that somebody sent and waits for.

    `model` is one of `Transcriber.models`, or None where the rules may choose. `on_text` is called on the event loop
    with what was heard, piece by piece in the order of the recording and each piece once, whatever is tried again;
    None when nobody listens. It need not be called at all: the transcript has the whole text.
    """

    audio: Audio
    options: Options
    model: str | None = None
    on_text: Callable[[str], None] | None = None


class Receiving(Protocol):
    """A file that an upload goes into."""

    path: Path
    size_bytes: int

    def write(self, chunk: bytes) -> None:
        """Append; raises NoRoomError, JobError when it can never fit, ServiceError when the disk is broken."""

    @property
    def sha256(self) -> str:
        """Hex digest of what was written so far."""


class Transcriber(Protocol):
    """Whoever turns uploads into transcripts."""

    def models(self) -> Sequence[str]:
        """Return what may be asked for; the engine's own model comes first."""

    def receive(self) -> AbstractContextManager[Receiving]:
        """Yield a new file, which stays when the block succeeds; an error or a cancellation deletes it."""

    def discard(self, audio: Audio) -> None:
        """Delete what `receive` made; doing it twice is no error."""

    async def transcribe(self, upload: Upload) -> Transcript:
        """Return what is said; raises JobError, or ServiceError when it is our fault.

        The file stays the caller's. Cancellation frees all that was under way.
        """
