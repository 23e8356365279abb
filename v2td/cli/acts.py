"""Who does something by a command, and how it comes into the audit log."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uuid import UUID

    from v2td.config import Settings

JOBS_NAMED = 100  # ids of an act that stand in its entry; the counts are of all


def actor() -> str:
    """Return who runs this command, as the audit log and the reason of a cancelled job have it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an id that has no name here
        user = str(os.getuid())
    return f"cli {user}@{socket.gethostname()}"


@asynccontextmanager
async def audited(settings: Settings, action: str, done: Callable[[], dict[str, Any]]) -> AsyncIterator[None]:
    """Write into the audit log what the block does: `done` is asked at its end, also when it fails or is interrupted.

    Raises ServiceError before the block where nothing could be written.
    """
    from v2td.store import audit, open_database

    database_settings = settings.database.model_copy(update={"pool_min": 0})
    async with open_database(database_settings, "v2td audit") as database:
        error: str | None = None
        try:
            yield
        except BaseException as trouble:
            error = f"{type(trouble).__name__}: {trouble}"
            raise
        finally:
            details = done()
            jobs = details.get("jobs", [])
            target = jobs[0] if len(jobs) == 1 else None
            await audit.note(database, actor(), action, target, details, error=error)


def named(jobs: Iterable[UUID]) -> list[str]:
    """Return the ids of jobs as an entry of the audit log holds them."""
    return [str(job) for job, _ in zip(jobs, range(JOBS_NAMED), strict=False)]
