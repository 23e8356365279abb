"""The HTTP side of an API like OpenAI's: pools, rates, deadlines, and errors that never hold the key."""

from __future__ import annotations

import asyncio
import contextlib
import io
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import BinaryIO, Self

import aiohttp
from aiohttp import hdrs

from v2td import __version__
from v2td.config import OpenAISettings
from v2td.errors import JobError, ProviderFailedError, ServiceError
from v2td.limit import PriorityLimit
from v2td.providers.openai_answers import BusyError, refusal
from v2td.providers.upload import CONTENT_TYPES
from v2td.tls import verifying

MAX_ANSWER_BYTES = 16_000_000  # the words of some ten hours
MAX_ERROR_BYTES = 16_384
MAX_PAUSE_SECONDS = 600.0  # what an API may ask for, at most, before it is asked again
# The longest pause that a request makes which is asked to, and for how long it asks again: where others may stand in,
# and where nobody would. Rates count by the minute.
PATIENCE_SECONDS, BUSY_SECONDS = 5.0, 60.0
LAST_PATIENCE_SECONDS, LAST_BUSY_SECONDS = 60.0, 600.0
BUSY_PAUSE_SECONDS = 1.0  # at least
HEALTH_SECONDS = 5.0
RATE_SECONDS = 60.0

Fields = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to send: its content, or where it lies; `suffix` is of CONTENT_TYPES."""

    content: bytes | Path
    suffix: str


@dataclass(frozen=True, slots=True)
class Turn:
    """When a request is sent: the urgent first (0). `begin` is called then; `last`: nobody else would be asked."""

    priority: int
    begin: Callable[[], None]
    last: bool = False


class Rate:
    """At most so many requests in any minute (pure); 0: any number. Times are monotonic seconds."""

    def __init__(self, per_minute: int) -> None:
        self._turns: deque[float] | None = deque(maxlen=per_minute) if per_minute else None

    def turn(self, now: float) -> float:
        """Take the next turn and return when it is, `now` or later."""
        if self._turns is None:
            return now
        full = len(self._turns) == self._turns.maxlen
        turn = max(now, self._turns[0] + RATE_SECONDS) if full else now
        self._turns.append(turn)
        return turn


class Client:
    """One API; an async context manager. Its requests are let in by their jobs' priority."""

    def __init__(self, settings: OpenAISettings) -> None:
        self._settings = settings
        self._base = settings.base_url.rstrip("/")
        self._key = settings.api_key.get_secret_value() if settings.api_key else ""
        # What waits for a connection waits here, where no deadline counts, and not in aiohttp's pool.
        self._places = PriorityLimit(min(settings.connections, settings.connections_per_host))
        self._rate = Rate(settings.requests_per_minute)
        self._timeout = aiohttp.ClientTimeout(total=settings.total_seconds, sock_connect=settings.connect_seconds)
        self._random = Random()  # noqa: S311 (jitter)
        self._closed_until = 0.0  # the loop's time until which the API asked to be left alone
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        settings = self._settings
        if not (self._key.isascii() and self._key.isprintable()) or self._key != self._key.strip():
            raise ServiceError(
                f"open the provider {settings.name}", "api_key has characters that no key has", "is a line break in it?"
            )
        connector = aiohttp.TCPConnector(
            limit=settings.connections,
            limit_per_host=settings.connections_per_host,
            keepalive_timeout=settings.idle_seconds,
            ssl=verifying(settings.ca_file, f"ca_file of the provider {settings.name}"),
        )
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_note_reuse)
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={hdrs.ACCEPT_ENCODING: "identity", hdrs.USER_AGENT: f"v2td/{__version__}"},
            trace_configs=[tracing],
            auto_decompress=False,
            trust_env=False,
        )
        self._session = await self._stack.enter_async_context(session)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def post(self, path: str, fields: Fields, upload: Upload, turn: Turn) -> bytes:
        """Send a file and the fields of a form when its turn has come; return the answer's body.

        An API that is busy is asked again when it says so, if that is soon. Raises ProviderRefusedError and
        ProviderFailedError; OSError when the file cannot be read.
        """
        clock = asyncio.get_running_loop().time
        patience, busy = PATIENCE_SECONDS, BUSY_SECONDS
        if turn.last:
            patience, busy = LAST_PATIENCE_SECONDS, LAST_BUSY_SECONDS
        give_up: float | None = None
        while True:
            try:
                return await self._post_in_turn(path, fields, upload, turn)
            except BusyError as error:
                if error.retry_after is None or error.retry_after > patience:
                    raise
                pause = max(error.retry_after, BUSY_PAUSE_SECONDS)
                give_up = give_up or clock() + busy
                if clock() + pause > give_up:
                    raise
            # Not all at once, and without a place: the urgent go first when it takes requests again.
            await asyncio.sleep(pause + self._random.uniform(0, BUSY_PAUSE_SECONDS))

    async def _post_in_turn(self, path: str, fields: Fields, upload: Upload, turn: Turn) -> bytes:
        clock = asyncio.get_running_loop().time
        async with self._places.inside(turn.priority):
            self._check_open()
            now = clock()
            await asyncio.sleep(self._rate.turn(now) - now)
            self._check_open()
            turn.begin()
            try:
                return await self._post_once_more(path, fields, upload)
            except ProviderFailedError as error:
                if error.retry_after is not None:
                    self._closed_until = clock() + min(error.retry_after, MAX_PAUSE_SECONDS)
                raise

    def _check_open(self) -> None:
        left = self._closed_until - asyncio.get_running_loop().time()
        if left > 0:
            raise BusyError(f"the API asked to be left alone for {left:.0f} s more", left)

    async def _post_once_more(self, path: str, fields: Fields, upload: Upload) -> bytes:
        """Post, and once more when the API closed an idle connection just as we took it, which says nothing of it."""
        reused = asyncio.Event()
        with self._as_provider_errors():
            try:
                return await self._post(path, fields, upload, reused)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if not reused.is_set():
                    raise
                return await self._post(path, fields, upload, asyncio.Event())

    async def _post(self, path: str, fields: Fields, upload: Upload, reused: asyncio.Event) -> bytes:
        form = aiohttp.FormData(fields)
        async with contextlib.AsyncExitStack() as stack:
            file: BinaryIO
            if isinstance(upload.content, bytes):
                file = io.BytesIO(upload.content)  # in blocks, so that the event loop is not held up
            else:
                file = await asyncio.to_thread(upload.content.open, "rb")
                stack.callback(file.close)
            # A name that is nobody's; APIs go by its suffix.
            name, kind = f"audio.{upload.suffix}", CONTENT_TYPES[upload.suffix]
            form.add_field("file", file, filename=name, content_type=kind)
            async with self._ask("POST", path, self._timeout, form, reused) as response:
                if response.status != 200:
                    raise await self._refusal(response)
                return await self._whole(response)

    def _ask(
        self,
        method: str,
        path: str,
        timeout: aiohttp.ClientTimeout,
        form: aiohttp.FormData | None = None,
        reused: asyncio.Event | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Send a request with the key; where the API redirects to, the key does not go."""
        return self._session.request(
            method,
            f"{self._base}/{path}",
            data=form,
            headers={hdrs.AUTHORIZATION: f"Bearer {self._key}"} if self._key else {},
            allow_redirects=False,
            timeout=timeout,
            trace_request_ctx=reused,
        )

    async def _whole(self, response: aiohttp.ClientResponse) -> bytes:
        content = bytearray()
        async for block in response.content.iter_any():
            content += block
            if len(content) > MAX_ANSWER_BYTES:
                raise ProviderFailedError(f"its answer is longer than {MAX_ANSWER_BYTES} bytes")
        return bytes(content)

    async def _refusal(self, response: aiohttp.ClientResponse) -> JobError:
        body = b""
        with contextlib.suppress(aiohttp.ClientError):  # the status counts without it
            while len(body) < MAX_ERROR_BYTES and (block := await response.content.read(MAX_ERROR_BYTES)):
                body += block
        retry_after = response.headers.get(hdrs.RETRY_AFTER)
        return refusal(response.status, body[:MAX_ERROR_BYTES], retry_after, datetime.now(UTC), self._key)

    async def health(self) -> str | None:
        """Say what is wrong with the API, asked for its models; None when it is well, or has no such list."""
        try:
            with self._as_provider_errors():
                async with self._ask("GET", "models", aiohttp.ClientTimeout(total=HEALTH_SECONDS)) as response:
                    if response.status in {200, 404, 405}:
                        return None
                    return (await self._refusal(response)).reason
        except ProviderFailedError as error:
            return error.reason

    @contextlib.contextmanager
    def _as_provider_errors(self) -> Iterator[None]:
        """Turn aiohttp's errors into the provider's."""
        settings = self._settings
        try:
            yield
        except aiohttp.ClientConnectorCertificateError as error:
            why = getattr(error.certificate_error, "verify_message", "") or "it does not match the host"
            raise ProviderFailedError(f"the API's certificate is refused: {why}") from None
        except aiohttp.ClientSSLError:
            raise ProviderFailedError("the TLS handshake with the API failed") from None
        except aiohttp.ConnectionTimeoutError:
            raise ProviderFailedError(f"no connection within connect_seconds ({settings.connect_seconds:g})") from None
        except TimeoutError:
            raise ProviderFailedError(f"no answer within total_seconds ({settings.total_seconds:g})") from None
        except aiohttp.ClientConnectorDNSError:
            raise ProviderFailedError("the API's host name could not be resolved") from None
        except aiohttp.ClientConnectorError as error:
            raise ProviderFailedError(f"no connection: {error.os_error.strerror or 'refused or reset'}") from None
        except aiohttp.ClientPayloadError:
            raise ProviderFailedError("the API's answer ended early or is damaged") from None
        except (aiohttp.ClientConnectionError, ConnectionError, ssl.SSLError):
            raise ProviderFailedError("the connection to the API was lost") from None
        except aiohttp.ClientError as error:
            raise ProviderFailedError(f"the API's answer is not valid HTTP ({type(error).__name__})") from None


async def _note_reuse(_session: object, context: SimpleNamespace, _params: object) -> None:
    if context.trace_request_ctx is not None:
        context.trace_request_ctx.set()
