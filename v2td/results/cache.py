"""Who needs the text of a recording asks here first: jobs under way, then Redis, then Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

from v2td import metrics, store
from v2td.config import CacheSettings, without_password
from v2td.errors import ConfigError, ServiceError
from v2td.jobs import Transcript
from v2td.logs import get_logger
from v2td.results.flights import Flight, Flights
from v2td.results.found import Found, of_rows, of_transcript
from v2td.results.rest import Rest

if TYPE_CHECKING:
    from v2td.results.redis_level import RedisLevel

log = get_logger(__name__)

LOOK_SECONDS = 5.0  # for Postgres; a text is always to be had in another way
LOOKS_AT_ONCE = 2  # the writer needs connections, too
DEFAULT_PRIORITY = 5


class Lease:
    """What a job has of the cache: a text, or the duty to make it, which `settle` ends."""

    def __init__(self, cache: ResultCache, found: Found | None, flight: Flight | None) -> None:
        self._cache = cache
        self._flight = flight
        self.found = found

    def settle(self, transcript: Transcript, *, becomes_row: bool = True) -> None:
        """Give the text to all who wait for it, and to those who will come. It need not be durable yet.

        Where it never will be, as of a recording that came by HTTP, their rows name no other.
        """
        self._cache.settle(transcript, self._flight, becomes_row=becomes_row)


class ResultCache:
    """Texts by the recording's digest and that of all that decides its text; an async context manager."""

    def __init__(self, database: store.Database, settings: CacheSettings, *, accept_truncated: bool = True) -> None:
        self._database = database
        self._settings = settings
        self._accept_truncated = accept_truncated  # by today's speech.truncated, whatever it was then
        self._flights = Flights()
        self._postgres = Rest("Postgres")
        self._looks = asyncio.Semaphore(LOOKS_AT_ONCE)
        self._redis: RedisLevel | None = None

    async def __aenter__(self) -> Self:
        """Open it; raises ConfigError where cache.redis_url cannot be used. Redis itself may be away."""
        if self._settings.redis_url is not None:
            self._redis = _redis_level(self._settings, self._settings.redis_url.get_secret_value())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._redis is not None:
            await self._redis.close()

    @asynccontextmanager
    async def lease(
        self, audio_sha256: str, text_sha256s: Sequence[str], priority: int = DEFAULT_PRIORITY
    ) -> AsyncIterator[Lease]:
        """Lend what there is: `found`, or None where the caller is the one to transcribe, and to `settle`.

        Waits while another job, no less urgent, has the same recording under way with one of the digests. Leaving
        without `settle` lets one of those who wait take over. Raises nothing of its own.
        """
        digests = frozenset(text_sha256s)
        if not digests:
            yield Lease(self, None, None)
            return
        joined = await self._flights.join(audio_sha256, digests, priority)
        if isinstance(joined, Found):
            metrics.RESULT_CACHE.labels(joined.level).inc()
            yield Lease(self, joined, None)
            return
        stopped = False
        try:
            found = await self._look_up(audio_sha256, text_sha256s)
            metrics.RESULT_CACHE.labels(found.level if found else "none").inc()
            if found is not None:
                self._flights.land(joined, found)
            yield Lease(self, found, joined)
        except asyncio.CancelledError:
            stopped = True
            raise
        finally:
            self._flights.land(joined, None, failed=not stopped)

    def settle(self, transcript: Transcript, flight: Flight | None = None, *, becomes_row: bool = True) -> None:
        """Keep a text that was transcribed, be it outside of any lease, as `v2td redo` does."""
        found = of_transcript(transcript, becomes_row=becomes_row)
        if flight is None:
            self._flights.keep(found)
        else:
            self._flights.land(flight, found)
        if self._redis is not None:
            self._redis.keep(found)

    async def _look_up(self, audio_sha256: str, text_sha256s: Sequence[str]) -> Found | None:
        if self._redis is not None:
            found = await self._redis.find(audio_sha256, text_sha256s)
            if found is not None and self._accepted(found):
                return found
        found = await self._in_postgres(audio_sha256, text_sha256s)
        if found is None or not self._accepted(found):
            return None
        if self._redis is not None:
            self._redis.keep(found)
        return found

    def _accepted(self, found: Found) -> bool:
        return self._accept_truncated or not found.truncated

    async def _in_postgres(self, audio_sha256: str, text_sha256s: Sequence[str]) -> Found | None:
        async with self._looks:
            if not self._postgres.may_ask():
                return None
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    rows = await store.find_result(self._database, audio_sha256, text_sha256s)
            except (ServiceError, TimeoutError) as error:
                self._postgres.failed(error)
                return None
            self._postgres.answered()
        return None if rows is None else of_rows(*rows)


async def check_redis(settings: CacheSettings) -> str:
    """Say what cache.redis_url leads to; raises ServiceError where it cannot be used."""
    assert settings.redis_url is not None
    redis = _redis_level(settings, settings.redis_url.get_secret_value())
    try:
        return await redis.check()
    finally:
        await redis.close()


def _redis_level(settings: CacheSettings, url: str) -> RedisLevel:
    try:
        from v2td.results.redis_level import RedisLevel  # noqa: PLC0415 (an extra of the package)
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("redis"):
            raise
        hint = "the package redis is missing: pip install 'v2td[redis]'"
        raise ConfigError("cache.redis_url", without_password(url), hint) from error
    return RedisLevel(settings, url)
