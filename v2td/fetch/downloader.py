"""The one way from a URL to a file."""

from __future__ import annotations

import asyncio
import contextlib
import math
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from aiohttp.abc import AbstractResolver
from yarl import URL

from v2td.config import CacheSettings, FetchSettings, S3Settings
from v2td.errors import NoRoomError
from v2td.fetch import files
from v2td.fetch.cache import FileCache
from v2td.fetch.guard import socket_factory
from v2td.fetch.hosts import PUBLIC, Access, PrivateHosts
from v2td.fetch.ranges import RangedTransfer
from v2td.fetch.s3 import ObjectStore
from v2td.fetch.spool import Incoming, Spool, default_spool_dir
from v2td.fetch.transfer import Transfer, open_session
from v2td.fetch.urls import FileSource, HttpSource, S3Source, parse
from v2td.jobs import Audio

MAX_PRESIGN_SECONDS = 604_800  # what S3 allows


class Downloader:
    """Fetches recordings, `fetch.concurrency` at once; use as an async context manager.

    Two sessions share one path: the public one, whose every socket passes the guard, and the object store's, which
    may reach the configured endpoints wherever they lie, and nothing else. Entering raises ServiceError when the spool
    folder, that of the cache, a ca_file or a certificate of fetch.hosts cannot be used; leaving deletes what was not
    discarded.
    """

    def __init__(
        self,
        fetch: FetchSettings,
        s3: S3Settings,
        resolver: AbstractResolver | None = None,
        cache: CacheSettings | None = None,
    ) -> None:
        self._settings = fetch
        self._s3 = s3
        self._cache_settings = cache if cache and cache.file_bytes else None
        self._cache: FileCache | None = None
        self._making_room: asyncio.Task[None] | None = None  # for uploads, whose senders come again
        self._store = ObjectStore(s3)
        self._resolver = resolver
        self._places = asyncio.Semaphore(fetch.concurrency)
        self._longest_seconds = math.ceil(min(fetch.total_seconds, MAX_PRESIGN_SECONDS))
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        settings = self._settings
        self._hosts = PrivateHosts(settings.hosts)
        async with contextlib.AsyncExitStack() as stack:
            self._spool = spool = stack.enter_context(Spool(settings.spool_dir or default_spool_dir()))
            if self._cache_settings is not None:
                cache = FileCache(self._cache_settings, spool, settings.spool_dir, settings.max_bytes)
                self._cache = await asyncio.to_thread(stack.enter_context, cache)
            store = await stack.enter_async_context(self._store)
            public_session = await stack.enter_async_context(
                open_session(
                    settings,
                    tls=ssl.create_default_context(),
                    sockets=socket_factory(settings.allowed_networks),
                    resolver=self._resolver,
                )
            )
            store.check_certificates()
            store_session = await stack.enter_async_context(open_session(settings, tls=ssl.create_default_context()))
            self._public = Transfer(public_session, spool, settings, max_redirects=settings.max_redirects)
            self._private = RangedTransfer(store_session, spool, settings, self._s3)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def store(self) -> ObjectStore:
        """The object store that s3:// URLs are fetched from, open as long as this is."""
        return self._store

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where the recordings lie that `fetch` returns."""
        return (self._spool.folder, *self._settings.file_roots)

    async def fetch(self, url: str, version_id: str | None = None) -> Audio:
        """Bring a recording onto this machine and return it; the caller hands it back to `discard`.

        `version_id` names one version of an object in a bucket, and means nothing to other URLs.
        Raises JobError, transient where another attempt may help; NoRoomError when the disk is full or read-only;
        ServiceError when it is broken or S3 credentials are missing. Waiting for a place does not count towards
        total_seconds. A failure or a cancellation leaves no file behind.
        """
        source = parse(url, self._settings)
        async with self._places:
            match source:
                case HttpSource(target):
                    return await self._get(self._public, target, target.scheme, self._hosts.access(target))
                case S3Source():
                    target = await self._store.presign(source, version_id, self._longest_seconds)
                    return await self._get(self._private, target, "s3", Access(tls=self._store.tls(source.bucket)))
                case FileSource(path):
                    return await files.read(path, self._settings)

    async def _get(self, transfer: Transfer, target: URL, scheme: str, access: Access) -> Audio:
        try:
            return await self._transferred(transfer, target, scheme, access)
        except NoRoomError:
            if self._cache is not None:
                await self._cache.make_room()
            raise

    async def _transferred(self, transfer: Transfer, target: URL, scheme: str, access: Access) -> Audio:
        # What a private source shows to us is not kept beyond the job: others may share the folder. An object store's
        # is, because the config says which buckets are read.
        if self._cache is None or (transfer is self._public and access is not PUBLIC):
            return (await transfer.get(target, scheme, access))[0]
        return await self._cache.get(transfer, target, scheme, access)

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """Open a new empty file of the spool, for a recording that is sent to us.

        An error or a cancellation in the block deletes it; when the block succeeds it is the caller's, an Audio to
        hand to `discard`.
        """
        try:
            with self._spool.incoming() as incoming:
                yield incoming
        except NoRoomError:
            if self._cache is not None:
                self._making_room = asyncio.create_task(self._cache.make_room())
            raise

    def discard(self, audio: Audio) -> None:
        """Delete what `fetch` made, when the disk allows it; a file:// source stays. Doing it twice is no error."""
        if audio.temporary:
            self._spool.discard(audio.path)
