"""Redis as one level of the cache of results: asked for a moment, and left alone while it does not answer."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from v2td import metrics
from v2td.config import CacheSettings, without_password
from v2td.errors import ConfigError, ServiceError
from v2td.results import codec
from v2td.results.found import Found
from v2td.results.rest import Rest

CONNECTIONS = 16
MAX_WRITES = 64  # under way; further texts are not kept here
CLOSE_SECONDS = 1.0
LARGE_BYTES = 32_768  # from here on unpacking would be felt by the event loop

_CHECK_HINT = (
    "is it running, and do the password in cache.redis_url and its user's rights (GET, SET, DEL, INFO on v2td:*) fit? "
    "It has cache.redis_timeout_seconds for an answer"
)

Answer = TypeVar("Answer")


class RedisLevel:
    """Texts in Redis, for `cache.redis_ttl_seconds`. No method raises; a Redis in trouble knows nothing."""

    def __init__(self, settings: CacheSettings, url: str) -> None:
        """Make it ready; nothing is asked yet. Raises ConfigError where the URL is none of Redis's."""
        self._ttl_ms = max(1, round(settings.redis_ttl_seconds * 1000))
        self._timeout = settings.redis_timeout_seconds
        self._places = asyncio.Semaphore(CONNECTIONS)
        self._rest = Rest("Redis")
        self._writes: set[asyncio.Task[object]] = set()
        try:
            # One more try at once, for a connection that a restart of Redis has closed.
            self._client = Redis.from_url(
                url,
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
                retry=Retry(NoBackoff(), 1),
            )
        except ValueError as error:
            hint = "write redis://, rediss:// or unix://, with special characters of the password as %XX"
            raise ConfigError("cache.redis_url", without_password(url), hint) from error

    async def close(self) -> None:
        """Let the last writes end, and close the connections."""
        if self._writes:
            _, late = await asyncio.wait(self._writes, timeout=CLOSE_SECONDS)
            for each in late:
                each.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._client.aclose()

    async def check(self) -> str:
        """Write, read and delete a value, and say what there is; raises ServiceError."""
        key = codec.key_of("check", secrets.token_hex(8))  # its own: somebody else may be checking, too
        try:
            await self._client.set(key, b"", px=self._ttl_ms)
            await self._client.mget([key])
            await self._client.delete(key)
            told: dict[str, Any] = await self._client.info()
        except (RedisError, OSError, ValueError) as error:
            raise ServiceError("use Redis", str(error), _CHECK_HINT) from error
        room = told.get("maxmemory", 0)
        bound = f"{room / 1e6:.0f} MB, {told.get('maxmemory_policy')}" if room else "no bound on its memory"
        return f"Redis {told.get('redis_version')} keeps results for {self._ttl_ms / 1000:g} s; {bound}"

    async def find(self, audio_sha256: str, text_sha256s: Sequence[str]) -> Found | None:
        """Return the text of a recording under the first of the digests that has one."""
        keys = [codec.key_of(audio_sha256, each) for each in text_sha256s]
        values = await self._ask(lambda: self._client.mget(keys))
        for value in values or ():
            if not isinstance(value, bytes):
                continue
            if len(value) < LARGE_BYTES:
                found = codec.decode(value, audio_sha256, text_sha256s)
            else:
                found = await asyncio.to_thread(codec.decode, value, audio_sha256, text_sha256s)
            if found is not None:
                return found
        return None

    def keep(self, found: Found) -> None:
        """Keep a text, in the background."""
        if len(self._writes) >= MAX_WRITES:
            return
        task = asyncio.create_task(self._write(found))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _write(self, found: Found) -> None:
        value = await asyncio.to_thread(codec.encode, found)
        if value is not None:
            key = codec.key_of(found.audio_sha256, found.text_sha256)
            await self._ask(lambda: self._client.set(key, value, px=self._ttl_ms))

    async def _ask(self, question: Callable[[], Awaitable[Answer]]) -> Answer | None:
        if not self._rest.may_ask():
            return None
        try:
            async with asyncio.timeout(self._timeout), self._places:
                answer = await question()
        except (RedisError, OSError, ValueError) as error:  # TimeoutError is an OSError
            metrics.REDIS_ERRORS.inc()
            self._rest.failed(error)
            return None
        self._rest.answered()
        return answer
