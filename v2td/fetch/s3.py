"""The object store, which may be several servers: presigns downloads, takes uploads, answers `v2td check`."""

from __future__ import annotations

import contextlib
import ssl
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self

from yarl import URL

from v2td.config import S3Settings
from v2td.errors import ErrorClass, JobError
from v2td.fetch.endpoint import Endpoint
from v2td.fetch.uploads import MIN_PART_BYTES, OpenFile, Parts, put
from v2td.fetch.urls import S3Source

_WILD = frozenset("*?[")


class ObjectStore:
    """Buckets, each at the server that the config names for it; use as an async context manager.

    The first of [[s3.stores]] that has a bucket counts, else [s3] itself.
    """

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        self._stack = contextlib.AsyncExitStack()
        self._main = Endpoint(settings, "s3", self._stack)
        self._others = [
            (store.buckets, Endpoint(store, f"s3.stores {store.name}", self._stack)) for store in settings.stores
        ]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def check_certificates(self) -> None:
        """Raise ServiceError when the ca_file of any server is unusable."""
        for endpoint in (self._main, *(other for _, other in self._others)):
            _ = endpoint.tls

    def tls(self, bucket: str) -> ssl.SSLContext:
        """Return what the certificate of a bucket's server is verified with."""
        return self._endpoint(bucket).tls

    def allows(self, bucket: str) -> bool:
        """Whether messages may name a bucket."""
        allowed = self._settings.allowed_buckets
        return not allowed or bucket in allowed

    async def client(self, bucket: str) -> Any:
        """Return the aiobotocore client of a bucket's server; it is open as long as this is. Raises ServiceError."""
        return await self._endpoint(bucket).client()

    async def presign(self, source: S3Source, version_id: str | None = None, min_seconds: int = 0) -> URL:
        """Return a URL for GETs, made without asking the server; it holds a signature: never log it.

        It is valid for s3.presign_seconds, and not less than `min_seconds`: parts are asked for as time goes by.
        Raises JobError: url_forbidden for a bucket that is not allowed, access_denied (transient) without credentials.
        """
        if not self.allows(source.bucket):
            raise JobError(ErrorClass.URL_FORBIDDEN, f"bucket {source.bucket} is not in s3.allowed_buckets")
        seconds = max(self._settings.presign_seconds, min_seconds)
        return await self._endpoint(source.bucket).presign(source, version_id, seconds)

    async def upload(self, path: Path, bucket: str, key: str) -> None:
        """Store a file under a key, a large one in parts; raises ServiceError, also when the file cannot be read."""
        endpoint = self._endpoint(bucket)
        client = await endpoint.client()
        parts = Parts(max(self._settings.part_bytes, MIN_PART_BYTES), self._settings.parts)
        with endpoint.explained(f"upload to s3://{bucket}/{key}"), OpenFile(path) as content:
            await put(client, bucket, key, content, parts)

    async def check(self) -> str:
        """Ask each server once, with its credentials; say in a few words what answered, or raise ServiceError."""
        settings = self._settings
        told = []
        if not self._others or any((settings.endpoint_url, settings.access_key, settings.upload_bucket)):
            buckets = [settings.upload_bucket, *settings.allowed_buckets]
            # A bucket that another server has says nothing about this one.
            own = [bucket for bucket in buckets if bucket and self._endpoint(bucket) is self._main]
            told.append(await self._main.check(next(iter(own), None)))
        for patterns, endpoint in self._others:
            told.append(await endpoint.check(next((each for each in patterns if not _WILD & set(each)), None)))
        return "; ".join(told)

    def _endpoint(self, bucket: str) -> Endpoint:
        for patterns, endpoint in self._others:
            if any(fnmatchcase(bucket, pattern) for pattern in patterns):
                return endpoint
        return self._main
