"""What the page needs of the daemon: its numbers as they change, all about one job, recordings to listen to."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID


class Unplayable(Exception):  # noqa: N818 (an answer, not a fault)
    """Why a recording cannot be had; `status` is HTTP's."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Watching(Protocol):
    """The daemon's numbers; nothing of what was said, of where recordings lie, or of what producers call their jobs."""

    @property
    def number(self) -> int:
        """Of the last sample."""

    @property
    def told(self) -> dict[str, Any]:
        """The last sample, for JSON."""

    def history(self) -> dict[str, Any]:
        """Return the samples of the last hour, for JSON."""

    async def after(self, number: int) -> int:
        """Return the number of the last sample, as soon as there is a later one than `number`."""


class Inspecting(Protocol):
    """Looks jobs up; raises ServiceError when that cannot be done now."""

    async def job(self, job: str) -> list[dict[str, Any]]:
        """Return what is known of a job by a row's id or a message's own; several when messages share that."""

    async def failures(self) -> dict[str, Any]:
        """Return the last failures by class."""

    def recording(self, job: UUID) -> AbstractAsyncContextManager[Path]:
        """Yield a job's recording as a file while the context lasts; raises Unplayable."""
