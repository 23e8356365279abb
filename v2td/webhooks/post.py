"""One request: sent past the guard that downloads pass, and judged by its status alone."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver

from v2td.config import FetchSettings, Settings
from v2td.errors import ErrorClass, JobError
from v2td.fetch.faults import as_job_errors
from v2td.fetch.guard import socket_factory
from v2td.fetch.transfer import open_session
from v2td.fetch.urls import parse_http
from v2td.retry import retry_after_seconds
from v2td.tls import verifying
from v2td.webhooks.resolver import OwnThreadsResolver
from v2td.webhooks.signing import Signer

# Of an answer's body: enough to use the connection again where receivers say little. Nobody looks at it.
BODY_BYTES = 16_384
BODY_SECONDS = 1.0

_ASKS_TO_WAIT = frozenset({429, 503})
_GONE = 410
_SETTINGS = re.compile(r"fetch\.(allowed_ports|allowed_hosts|allowed_networks)")
_TIMES = re.compile(r"fetch\.(connect|read|total)_seconds(, or sooner for headers)?")


@dataclass(frozen=True, slots=True)
class Answer:
    """How an attempt went: delivered, failed (to be tried again) or dead (never again).

    `error` is one printable line, without anything that the receiver said; `asked` are the seconds it wants us to wait.
    """

    how: Literal["delivered", "failed", "dead"]
    status: int | None = None
    error: str | None = None
    asked: float | None = None


def rules(settings: Settings) -> FetchSettings:
    """Return what downloads would have to obey to obey the rules of webhooks."""
    ours = settings.webhooks
    return settings.fetch.model_copy(
        update={
            "allowed_ports": ours.allowed_ports,
            "allowed_networks": ours.allowed_networks,
            "allowed_hosts": ours.allowed_hosts,
            "connect_seconds": min(settings.fetch.connect_seconds, ours.timeout_seconds),
            "read_seconds": ours.timeout_seconds,
        }
    )


def in_our_words(reason: str) -> str:
    """Return the reason of a refusal with the names of the settings that webhooks have."""
    return _TIMES.sub("webhooks.timeout_seconds", _SETTINGS.sub(r"webhooks.\1", reason))


def host_of(url: str, settings: FetchSettings) -> str:
    """Return host and port of a URL, as they are compared; "-" where the rules refuse it."""
    try:
        source = parse_http(url, settings)
    except JobError:
        return "-"
    return f"{source.host}:{source.port}"


def judge(status: int, retry_after: str | None, now: datetime) -> Answer:
    """Return what a status means. Pure. Redirects are not followed: who is told is who was named."""
    if 200 <= status <= 299:
        return Answer("delivered", status)
    if status == _GONE:
        return Answer("dead", status, "the receiver answered 410: it wants no more of these")
    asked = retry_after_seconds(retry_after, now) if status in _ASKS_TO_WAIT else None
    redirects = ", and redirects are not followed" if 300 <= status <= 399 else ""
    return Answer("failed", status, f"the receiver answered {status}{redirects}", asked)


class Poster:
    """Sends signed requests; made by `open_poster`."""

    def __init__(self, session: aiohttp.ClientSession, settings: Settings, signer: Signer) -> None:
        self._session = session
        self._rules = rules(settings)
        self._seconds = settings.webhooks.timeout_seconds
        self._signer = signer

    async def post(self, url: str, message_id: str, body: str) -> Answer:
        """Send it once and say how that went, within webhooks.timeout_seconds whatever the receiver does."""
        try:
            target = parse_http(url, self._rules).target
            with as_job_errors():
                async with asyncio.timeout(self._seconds):
                    now = datetime.now(UTC)
                    headers = self._signer.headers(message_id, now, body)
                    headers[hdrs.CONTENT_TYPE] = "application/json; charset=utf-8"
                    async with self._session.post(
                        target, data=body.encode(), headers=headers, allow_redirects=False
                    ) as response:
                        await _pass_over(response)
                        return judge(response.status, response.headers.get(hdrs.RETRY_AFTER), now)
        except JobError as error:
            how: Literal["dead", "failed"] = "dead" if error.error_class is ErrorClass.URL_FORBIDDEN else "failed"
            return Answer(how, error=in_our_words(error.reason))


async def _pass_over(response: aiohttp.ClientResponse) -> None:
    """Read the body if it is short and there: the status counts without it."""
    left = BODY_BYTES
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, JobError):
        async with asyncio.timeout(BODY_SECONDS):
            while left > 0 and (chunk := await response.content.read(left)):
                left -= len(chunk)


@contextlib.asynccontextmanager
async def open_poster(settings: Settings, resolver: AbstractResolver | None = None) -> AsyncIterator[Poster]:
    """Open what sends; raises ServiceError when webhooks.ca_file is unusable. webhooks.secret has to be set."""
    ours = settings.webhooks
    secrets = [each for each in (ours.secret, ours.old_secret) if each is not None]
    assert secrets
    resolver = resolver or OwnThreadsResolver()
    try:
        async with open_session(
            rules(settings),
            tls=verifying(ours.ca_file, "webhooks.ca_file"),
            sockets=socket_factory(ours.allowed_networks),
            resolver=resolver,
        ) as session:
            yield Poster(session, settings, Signer(secrets))
    finally:
        await resolver.close()  # which a session closes only when it is its own
