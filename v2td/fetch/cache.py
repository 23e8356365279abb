"""The cache of files: a download that was done before is spared when the server says that nothing has changed.

It is asked every time, with the ETag that it gave to the file that is kept, so nothing stale is ever used. A cache in
trouble is a slower download, never a failed job.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import uuid4

from yarl import URL

from v2td.config import CacheSettings
from v2td.errors import ServiceError
from v2td.fetch.hosts import Access
from v2td.fetch.kept import FOLDER, KeptFiles
from v2td.fetch.spool import Spool, default_spool_dir
from v2td.fetch.transfer import NotModifiedError, Transfer
from v2td.fetch.validators import Validator, place
from v2td.jobs import Audio
from v2td.logs import get_logger
from v2td.metrics import FILE_CACHE, FILE_CACHE_BYTES, FILE_CACHE_EVICTIONS, FILE_CACHE_HIT_BYTES

log = get_logger(__name__)

Result = TypeVar("Result")


def cache_folder(settings: CacheSettings, spool_dir: Path | None) -> Path:
    """Return where the files are kept."""
    return settings.file_dir or (spool_dir or default_spool_dir()) / FOLDER


def open_kept_files(settings: CacheSettings, spool_dir: Path | None) -> KeptFiles:
    """Return the folder as the settings have it, to be entered."""
    folder = cache_folder(settings, spool_dir)
    return KeptFiles(folder, settings.file_bytes, settings.file_max_bytes, settings.file_admission)


class FileCache:
    """Kept files, for the event loop; use as a context manager. Entering raises ServiceError."""

    def __init__(self, settings: CacheSettings, spool: Spool, spool_dir: Path | None, max_bytes: int) -> None:
        self._settings = settings
        self._spool = spool
        self._spool_dir = spool_dir
        self._max_bytes = max_bytes
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            with ExitStack() as stack:
                self._files = stack.enter_context(open_kept_files(self._settings, self._spool_dir))
                FILE_CACHE_BYTES.set(self._files.sums().size_bytes)
                self._stack = stack.pop_all()
        except (OSError, sqlite3.Error) as error:
            folder = cache_folder(self._settings, self._spool_dir)
            raise ServiceError("open the cache of files", f"{folder}: {error}", "set cache.file_dir") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def get(self, transfer: Transfer, target: URL, scheme: str, access: Access) -> Audio:
        """Download as `transfer` does, or return what is kept as a file of the spool; raises likewise."""
        address = place(target)
        kept = await self._take(address)
        known = kept[1] if kept else None
        try:
            audio, validator = await transfer.get(target, scheme, access, known)
        except BaseException as error:
            if kept is not None and isinstance(error, NotModifiedError):
                FILE_CACHE.labels("hit").inc()
                FILE_CACHE_HIT_BYTES.inc(kept[0].size_bytes)
                return kept[0]
            if kept is not None:
                self._spool.discard(kept[0].path)
            raise
        FILE_CACHE.labels("none" if kept is None else "stale").inc()
        if kept is not None:
            self._spool.discard(kept[0].path)
        if validator is not None:
            await self._keep(address, audio, validator)
        return audio

    async def make_room(self) -> None:
        """Give way where the spool's disk is full: who waits for room there would wait for us for ever."""
        sums = await _in_thread(lambda: self._files.make_room(self._spool.folder))
        if sums is not None and sums.evicted:
            FILE_CACHE_BYTES.set(sums.size_bytes)
            FILE_CACHE_EVICTIONS.inc(sums.evicted)
            log.warning("the cache of files makes room on a full disk", files=sums.evicted)

    async def _take(self, address: str) -> tuple[Audio, Validator] | None:
        """Return what is kept for an address as a file of the spool, which the caller discards, if there is any."""
        path = self._spool.folder / f"kept-{uuid4().hex}"

        def discard() -> None:
            self._spool.discard(path)

        kept = await _in_thread(lambda: self._files.take(address, path, self._max_bytes), undo=discard)
        if kept is None:
            return None
        return Audio(path, kept.size_bytes, kept.sha256, temporary=True), kept.validator

    async def _keep(self, address: str, audio: Audio, validator: Validator) -> None:
        """Keep a recording, perhaps: see cache.file_admission and cache.file_max_bytes."""
        try:
            sums = await _in_thread(
                lambda: self._files.keep(address, audio.path, audio.size_bytes, audio.sha256, validator)
            )
        except BaseException:
            self._spool.discard(audio.path)
            raise
        if sums is not None:
            FILE_CACHE_BYTES.set(sums.size_bytes)
            FILE_CACHE_EVICTIONS.inc(sums.evicted)


async def _in_thread(work: Callable[[], Result], undo: Callable[[], None] = lambda: None) -> Result | None:
    """Run `work`; None, and a line in the log, when the disk or the index fails it.

    A thread cannot be cancelled: when we are, what it did is undone as soon as it ends.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        running.add_done_callback(lambda done: _end(done, undo))
        raise
    except (OSError, sqlite3.Error) as error:
        undo()
        log.warning("the cache of files is of no use", error=f"{type(error).__name__}: {error}")
        return None


def _end(done: asyncio.Future[Any], undo: Callable[[], None]) -> None:
    if not done.cancelled():
        done.exception()  # asked for, so that asyncio does not complain that nobody did
    undo()
