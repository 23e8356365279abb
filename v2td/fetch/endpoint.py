"""One S3 server: its client, opened late, and URLs for downloads from it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections.abc import Iterator
from typing import Any

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

from v2td.config import S3Settings, StoreSettings
from v2td.errors import ErrorClass, JobError, ServiceError, TransientJobError
from v2td.fetch.urls import S3Source
from v2td.tls import verifying

_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)


class Endpoint:
    """A server as [s3] or one of [[s3.stores]] names it; `setting` is how errors call that table.

    The client is opened at the first use, which keeps a daemon that never sees an s3:// URL from searching for
    credentials, and closed by `stack`.
    """

    def __init__(self, settings: S3Settings | StoreSettings, setting: str, stack: contextlib.AsyncExitStack) -> None:
        self._settings = settings
        self._setting = setting
        self._stack = stack
        self._opening = asyncio.Lock()
        self._opened: Any = None

    @functools.cached_property
    def tls(self) -> ssl.SSLContext:
        """What the server's certificate is verified with; raises ServiceError when ca_file is unusable."""
        return verifying(self._settings.ca_file, f"{self._setting}.ca_file")

    async def client(self) -> Any:
        """Return the aiobotocore client, which stays ours to close; raises ServiceError."""
        async with self._opening:
            if self._opened is None:
                with self.explained("open"):
                    self._opened = await self._stack.enter_async_context(self._make_client())
            return self._opened

    async def presign(self, source: S3Source, version_id: str | None, seconds: int) -> URL:
        """Return a URL for one GET, valid for `seconds`; raises as ObjectStore.presign."""
        client = await self.client()
        version = {} if version_id is None else {"VersionId": version_id}
        try:
            url = await client.generate_presigned_url(
                "get_object", Params={"Bucket": source.bucket, "Key": source.key, **version}, ExpiresIn=seconds
            )
        except _NO_CREDENTIALS as error:
            # One s3:// URL where no object store is configured must not end the daemon; a lapse of the chain passes.
            raise TransientJobError(ErrorClass.ACCESS_DENIED, f"no credentials for s3:// URLs: {error}") from error
        except (BotoCoreError, ClientError, ValueError):  # odd names: the message's fault, not ours
            raise JobError(ErrorClass.URL_FORBIDDEN, f"bucket {source.bucket} cannot be addressed") from None
        target = URL(url, encoded=True)
        self._check_endpoint(target, URL(client.meta.endpoint_url))
        return target

    async def check(self, bucket: str | None) -> str:
        """Ask the server once, for a bucket or for the list of them; raises ServiceError."""
        client = await self.client()
        where = f"bucket {bucket}" if bucket else "the list of buckets"
        with self.explained(f"check of {where} at {client.meta.endpoint_url}"):
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

    @contextlib.contextmanager
    def explained(self, operation: str) -> Iterator[None]:
        """Turn what the client raises into a ServiceError that names the section of the config."""
        hint = f"see the section [{self._setting}] of config.toml"
        try:
            yield
        except ClientError as error:
            raise ServiceError("object store", f"{operation}: {_code(error)}", hint) from error
        except (BotoCoreError, aiohttp.ClientError, OSError, ValueError) as error:
            raise ServiceError("object store", f"{operation}: {error}", hint) from error

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
                # A signature over the body would have us hash it in the loop. Where TLS does not protect it on its way,
                # nothing does on its way back.
                s3={"addressing_style": settings.addressing_style, "payload_signing_enabled": False},
                # Checksum headers beyond the signature would have to be sent along with a presigned URL.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                retries={"mode": "standard", "total_max_attempts": 2},
                connect_timeout=5,
                proxies={},  # none from the environment, as for downloads
            ),
        )

    def _check_endpoint(self, target: URL, endpoint: URL) -> None:
        """The stores' session has no guard, so what it connects to must be the configured endpoint."""
        host, base = str(target.host), str(endpoint.host)
        if self._settings.endpoint_url is None:
            base = "amazonaws.com.cn" if base.endswith(".cn") else "amazonaws.com"
        if (host != base and not host.endswith(f".{base}")) or target.port != endpoint.port:
            raise JobError(ErrorClass.URL_FORBIDDEN, "the bucket does not lie at the configured endpoint")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown error"))
