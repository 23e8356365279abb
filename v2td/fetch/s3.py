"""The object store: presigns downloads, takes uploads, answers `v2td check`."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)
from yarl import URL

from v2td.config import S3Settings
from v2td.errors import ErrorClass, JobError, ServiceError, TransientJobError
from v2td.fetch.urls import S3Source
from v2td.tls import verifying

_HINT = "see the section [s3] of config.toml"
_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)


class ObjectStore:
    """One S3 client, opened at the first use and closed with the context.

    Opening late keeps a daemon that never sees an s3:// URL from searching for credentials.
    """

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        self._stack = contextlib.AsyncExitStack()
        self._opening = asyncio.Lock()
        self._opened: Any = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._opened = None
        await self._stack.aclose()

    def tls(self) -> ssl.SSLContext:
        """Return what the endpoint's certificate is verified with; raises ServiceError when ca_file is unusable."""
        return verifying(self._settings.ca_file, "s3.ca_file")

    async def presign(self, source: S3Source) -> URL:
        """Return a URL for one GET, made without asking the server; it holds a signature: never log it.

        Raises JobError: url_forbidden for a bucket that is not allowed, access_denied (transient) without credentials.
        """
        allowed = self._settings.allowed_buckets
        if allowed and source.bucket not in allowed:
            raise JobError(ErrorClass.URL_FORBIDDEN, f"bucket {source.bucket} is not in s3.allowed_buckets")
        client = await self._client()
        try:
            url = await client.generate_presigned_url(
                "get_object",
                Params={"Bucket": source.bucket, "Key": source.key},
                ExpiresIn=self._settings.presign_seconds,
            )
        except _NO_CREDENTIALS as error:
            # One s3:// URL where no object store is configured must not end the daemon; a lapse of the chain passes.
            raise TransientJobError(ErrorClass.ACCESS_DENIED, f"no credentials for s3:// URLs: {error}") from error
        except (BotoCoreError, ClientError, ValueError):  # odd names: the message's fault, not ours
            raise JobError(ErrorClass.URL_FORBIDDEN, f"bucket {source.bucket} cannot be addressed") from None
        target = URL(url, encoded=True)
        self._check_endpoint(target, URL(client.meta.endpoint_url))
        return target

    async def upload(self, path: Path, bucket: str, key: str) -> None:
        """Store a file under a key; raises ServiceError, also when the file cannot be read."""
        client = await self._client()
        with _as_service_error(f"upload to s3://{bucket}/{key}"), path.open("rb") as body:
            await client.put_object(Bucket=bucket, Key=key, Body=body)

    async def check(self) -> str:
        """Ask the server once, with the credentials; say in a few words what answered, or raise ServiceError."""
        client = await self._client()
        bucket = self._settings.upload_bucket or next(iter(self._settings.allowed_buckets), None)
        where = f"bucket {bucket}" if bucket else "the list of buckets"
        with _as_service_error(f"check of {where} at {client.meta.endpoint_url}"):
            try:
                if bucket:
                    await client.list_objects_v2(Bucket=bucket, MaxKeys=1)
                else:
                    await client.list_buckets()
            except ClientError as error:
                if _code(error) != "AccessDenied":  # the credentials are good, they may only not list
                    raise
                return f"{client.meta.endpoint_url} knows the credentials (they may not read {where})"
        return f"{client.meta.endpoint_url} shows {where}"

    async def _client(self) -> Any:
        async with self._opening:
            if self._opened is None:
                with _as_service_error("open"):
                    self._opened = await self._stack.enter_async_context(self._make_client())
            return self._opened

    def _make_client(self) -> Any:
        settings = self._settings
        return get_session().create_client(
            "s3",
            endpoint_url=settings.endpoint_url,
            region_name=settings.region,
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=settings.secret_key.get_secret_value() if settings.secret_key else None,
            verify=str(settings.ca_file) if settings.ca_file else None,
            config=AioConfig(
                signature_version="s3v4",
                s3={"addressing_style": settings.addressing_style},
                # Checksum headers beyond the signature would have to be sent along with a presigned URL.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                retries={"mode": "standard", "total_max_attempts": 2},
                connect_timeout=5,
                proxies={},  # none from the environment, as for downloads
            ),
        )

    def _check_endpoint(self, target: URL, endpoint: URL) -> None:
        """The store's session has no guard, so what it connects to must be the configured endpoint."""
        host, base = str(target.host), str(endpoint.host)
        if self._settings.endpoint_url is None:
            base = "amazonaws.com.cn" if base.endswith(".cn") else "amazonaws.com"
        if (host != base and not host.endswith(f".{base}")) or target.port != endpoint.port:
            raise JobError(ErrorClass.URL_FORBIDDEN, "the bucket does not lie at the configured endpoint")


@contextlib.contextmanager
def _as_service_error(operation: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        raise ServiceError("object store", f"{operation}: {_code(error)}", _HINT) from error
    except (BotoCoreError, aiohttp.ClientError, OSError, ValueError) as error:
        raise ServiceError("object store", f"{operation}: {error}", _HINT) from error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown error"))
