"""One GET: requested, followed through redirects and streamed into the spool, under every limit of `fetch`."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver
from yarl import URL

from v2td import __version__
from v2td.config import FetchSettings
from v2td.errors import ErrorClass, JobError, TransientJobError
from v2td.fetch import answers
from v2td.fetch.faults import as_job_errors
from v2td.fetch.guard import SocketFactory
from v2td.fetch.hosts import PUBLIC, Access
from v2td.fetch.protocol import BoundedConnector
from v2td.fetch.spool import Incoming, Spool
from v2td.fetch.urls import origin, parse_http
from v2td.fetch.validators import Validator
from v2td.jobs import Audio
from v2td.metrics import FETCHED_BYTES

CHUNK_BYTES = 256 * 1024
PACE_WINDOW_SECONDS = 30.0


@contextlib.asynccontextmanager
async def open_session(
    settings: FetchSettings,
    *,
    tls: ssl.SSLContext,
    sockets: SocketFactory | None = None,
    resolver: AbstractResolver | None = None,
) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session that takes nothing from the environment, keeps no cookie and unpacks nothing."""
    connector = BoundedConnector(
        max_head_bytes=8 * settings.max_header_bytes, limit=0, ssl=tls, socket_factory=sockets, resolver=resolver
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={hdrs.ACCEPT_ENCODING: "identity", hdrs.USER_AGENT: f"v2td/{__version__}"},
        timeout=aiohttp.ClientTimeout(
            total=None,  # Transfer.get holds the whole to total_seconds
            connect=settings.connect_seconds,
            sock_read=settings.read_seconds,
        ),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=CHUNK_BYTES,
        max_line_size=settings.max_header_bytes,
        max_field_size=settings.max_header_bytes,
        max_headers=settings.max_headers,
    ) as session:
        yield session


class NotModifiedError(Exception):
    """The server still has the very bytes that a condition named."""


class Transfer:
    """Downloads by one session into one spool, each in one stream."""

    def __init__(
        self, session: aiohttp.ClientSession, spool: Spool, settings: FetchSettings, *, max_redirects: int
    ) -> None:
        self._session = session
        self._spool = spool
        self._settings = settings
        self._max_redirects = max_redirects

    async def get(
        self, target: URL, scheme: str, access: Access = PUBLIC, known: Validator | None = None
    ) -> tuple[Audio, Validator | None]:
        """Download; return also what tells these bytes from later ones at the same place, if the server says it.

        `scheme` labels the metric. Raises JobError, and NotModifiedError when the server has nothing newer than what
        is `known`; these and a cancellation leave no file. `access` is for the target's origin only: the first
        redirect to another ends it. Nothing is awaited behind the file's block, so that a file that stays is always
        handed to the caller.
        """
        with self._spool.incoming() as incoming, as_job_errors():
            try:
                async with asyncio.timeout(self._settings.total_seconds):
                    validator = await self._download(target, access, known, incoming)
            finally:
                FETCHED_BYTES.labels(scheme).inc(incoming.size_bytes)
        return Audio(incoming.path, incoming.size_bytes, incoming.sha256, temporary=True), validator

    async def _download(
        self, target: URL, access: Access, known: Validator | None, incoming: Incoming
    ) -> Validator | None:
        for _ in range(self._max_redirects + 1):
            condition = known.condition(target) if known else {}
            async with self._answer(target, access, condition) as response:
                location = response.headers.get(hdrs.LOCATION)
                if response.status not in answers.REDIRECTS or location is None:
                    await self._receive(response, incoming, conditional=bool(condition))
                    return Validator.of(response.headers, target)
            redirected = self._redirected(target, location)
            if origin(redirected) != origin(target):
                access = PUBLIC  # for good: whoever we are sent to shall not choose what is fetched with it
            target = redirected
        raise JobError(ErrorClass.HTTP_ERROR, f"the server redirects more than {self._max_redirects} times")

    @contextlib.asynccontextmanager
    async def _answer(
        self, target: URL, access: Access, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send the request; headers that trickle in get as long as connecting and one read may take."""
        async with asyncio.timeout(self._settings.connect_seconds + self._settings.read_seconds):
            response = await self._session.get(
                target, allow_redirects=False, headers={**headers, **access.headers}, ssl=access.tls or True
            )
        async with response:
            yield response

    def _redirected(self, target: URL, location: str) -> URL:
        try:
            joined = target.join(URL(location, encoded=True))
        except ValueError:
            raise JobError(ErrorClass.URL_FORBIDDEN, "the server redirects to what is no URL") from None
        try:
            return parse_http(str(joined), self._settings).target
        except JobError as error:
            raise JobError(error.error_class, f"redirect: {error.reason}") from None

    async def _receive(self, response: aiohttp.ClientResponse, incoming: Incoming, *, conditional: bool) -> None:
        """Write a body that comes whole; any other answer is an error."""
        if response.status == 304 and conditional:
            raise NotModifiedError
        if response.status != 200:
            raise await self._refusal(response)
        self._check_size(response.content_length or 0)

        def take(chunk: bytes) -> None:
            self._check_size(incoming.size_bytes + len(chunk))
            incoming.write(chunk)

        await self._receive_body(response.content, take)

    async def _receive_body(self, body: aiohttp.StreamReader, take: Callable[[bytes], None]) -> None:
        """Hand a body to `take` as it comes; raise when it comes too slowly, or nothing of it but chunk extensions.

        Small chunks are many, so the timer is set anew now and then only: it may ring a thirtieth sooner.
        """
        least = self._settings.min_bytes_per_second
        clock = asyncio.get_running_loop().time
        renewed = clock()
        pace = answers.Pace(least, PACE_WINDOW_SECONDS, renewed)
        try:
            async with asyncio.timeout(PACE_WINDOW_SECONDS if least else None) as window:
                while chunk := await body.read(CHUNK_BYTES):
                    take(chunk)
                    now = clock()
                    if pace.is_too_slow(len(chunk), now):
                        raise self._too_slow()
                    if least and now - renewed >= PACE_WINDOW_SECONDS / 30:
                        window.reschedule(now + PACE_WINDOW_SECONDS)
                        renewed = now
        except TimeoutError:
            if window.expired():
                raise self._too_slow() from None
            raise

    def _too_slow(self) -> TransientJobError:
        reason = f"slower than fetch.min_bytes_per_second ({self._settings.min_bytes_per_second})"
        return TransientJobError(ErrorClass.TIMEOUT, reason)

    async def _refusal(self, response: aiohttp.ClientResponse) -> JobError:
        body = await self._start_of(response)
        return answers.refusal(response.status, body, response.headers.get(hdrs.RETRY_AFTER), datetime.now(UTC))

    async def _start_of(self, response: aiohttp.ClientResponse) -> bytes:
        """Return what comes of an error's body in the time of one read: the status counts without it."""
        body = b""
        with contextlib.suppress(TimeoutError, aiohttp.ClientError, JobError):
            async with asyncio.timeout(self._settings.read_seconds):
                async for chunk in response.content.iter_chunked(answers.BODY_BYTES):
                    body += chunk
                    if len(body) >= answers.BODY_BYTES:
                        break
        return body[: answers.BODY_BYTES]

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._settings.max_bytes:
            raise JobError(ErrorClass.TOO_LARGE, f"larger than fetch.max_bytes ({self._settings.max_bytes})")
