"""file:// sources: read where they are, below the configured roots only."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from v2td.config import FetchSettings
from v2td.errors import ErrorClass, JobError
from v2td.jobs import Audio
from v2td.metrics import FETCHED_BYTES

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})


async def read(path: Path, settings: FetchSettings) -> Audio:
    """Return the file as an Audio that is not ours to delete, hashed in a thread.

    Raises JobError: url_forbidden outside the roots (after symlinks), not_found, access_denied, too_large. A
    cancellation leaves the thread to finish its reading.
    """
    audio = await asyncio.to_thread(_read, path, settings.file_roots, settings.max_bytes)
    FETCHED_BYTES.labels("file").inc(audio.size_bytes)
    return audio


def _read(path: Path, roots: Sequence[Path], max_bytes: int) -> Audio:
    resolved = _resolved(path, roots)
    try:
        with open(resolved, "rb", opener=_open) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise JobError(ErrorClass.URL_FORBIDDEN, "not a regular file")
            if status.st_size > max_bytes:
                raise JobError(ErrorClass.TOO_LARGE, f"larger than fetch.max_bytes ({max_bytes})")
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return Audio(resolved, file.tell(), digest, temporary=False)
    except IsADirectoryError:
        raise JobError(ErrorClass.URL_FORBIDDEN, "not a regular file") from None
    except OSError as error:
        error_class = ErrorClass.NOT_FOUND if error.errno in _ABSENT else ErrorClass.ACCESS_DENIED
        raise JobError(error_class, f"cannot be read: {error.strerror}") from None


def _open(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a FIFO would wait for a writer.
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def _resolved(path: Path, roots: Sequence[Path]) -> Path:
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError):  # RuntimeError: a loop of symlinks
        raise JobError(ErrorClass.URL_FORBIDDEN, "the path cannot be resolved") from None
    if not any(resolved.is_relative_to(root.resolve()) for root in roots):
        raise JobError(ErrorClass.URL_FORBIDDEN, "the file is not below fetch.file_roots")
    return resolved
