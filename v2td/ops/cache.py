"""The cache of files as a person looks at it: how much there is, and away with it. Blocks on the disk."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from v2td.config import Settings
from v2td.errors import ServiceError
from v2td.fetch import cache_folder, open_kept_files


@dataclass(frozen=True, slots=True)
class CacheState:
    """What is kept; nothing has been kept yet where there is no folder."""

    folder: Path
    files: int
    size_bytes: int
    max_bytes: int  # 0: nothing is kept


def look(settings: Settings) -> CacheState:
    """Count the recordings that are kept; raises ServiceError."""
    return _visit(settings, clear=False)


def clear(settings: Settings) -> CacheState:
    """Delete them and return what there was, also while daemons run; raises ServiceError."""
    return _visit(settings, clear=True)


def _visit(settings: Settings, *, clear: bool) -> CacheState:
    folder = cache_folder(settings.cache, settings.fetch.spool_dir)
    files = size_bytes = 0
    with _explained(folder):
        if folder.is_dir():
            with open_kept_files(settings.cache, settings.fetch.spool_dir) as kept:
                sums = kept.clear() if clear else kept.sums()
                files, size_bytes = sums.files, sums.size_bytes
    return CacheState(folder, files, size_bytes, settings.cache.file_bytes)


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        hint = "run it as the user of the daemon"
        raise ServiceError("look at the cache of files", f"{folder}: {error}", hint) from error
