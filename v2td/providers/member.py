"""A provider among others: its share, its places, how it is, and whether it is left alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from v2td import metrics
from v2td.breaker import PROBES, CircuitBreaker
from v2td.config import LOCAL, Settings
from v2td.errors import ConfigError, JobError, ProviderFailedError, ProviderRefusedError, ServiceError, first_of
from v2td.jobs import MAX_REASON, SAMPLE_RATE, Heard
from v2td.logs import get_logger
from v2td.providers.heard import checked
from v2td.providers.places import Places
from v2td.providers.protocol import Provider, Recording
from v2td.providers.windows import Rewound

log = get_logger(__name__)

ALMOST = 0.95
HEALTH_SECONDS = 10.0  # longest wait for an answer to whether it is well


class Member:
    """One provider, its part in a group, and what is known of how it does.

    `concurrency` 0: as the provider itself says.
    """

    def __init__(
        self,
        provider: Provider,
        settings: Settings,
        *,
        group: str | None = None,
        weight: int = 1,
        concurrency: int = 0,
    ) -> None:
        self.provider = provider
        self.name = provider.name
        self.group = group
        self.weight = weight
        self.turn = 0  # how much it is behind its share
        self.places = Places(self.name, concurrency or provider.concurrency)
        self.trouble: str | None = None
        self._queues = self.places.size == 0  # jobs wait in a queue of its own
        self._settings = settings
        self._breaker = CircuitBreaker(
            ratio=settings.providers.breaker_ratio,
            seconds=settings.providers.breaker_seconds,
            jobs=settings.providers.breaker_jobs,
            pause_seconds=settings.providers.breaker_pause_seconds,
            probes=self._probes(),
        )
        self._ok = metrics.PROVIDER_JOBS.labels(self.name, "ok")
        self._seconds = metrics.PROVIDER_SECONDS.labels(self.name)
        self._audio_seconds = metrics.PROVIDER_AUDIO_SECONDS.labels(self.name)
        self.note_health(None)
        self.open_seconds  # noqa: B018 (its gauge is there from the start)
        for result in ("ok", "failed", "refused"):
            metrics.PROVIDER_JOBS.labels(self.name, result)

    def _probes(self) -> int:
        """Return by how many jobs to tell whether it does its work again: fewer of one that takes few at once.

        Others wait behind them. While half of these are heard, one after the other, no more than these get a place.
        """
        size = self.places.size
        return min(PROBES, 2 * size - 1) if size else PROBES

    @property
    def open_seconds(self) -> float | None:
        """For how much longer it is left alone; None when it is not."""
        now = time.monotonic()
        until = self._breaker.open_until(now)
        metrics.PROVIDER_OPEN.labels(self.name).set(until is not None)
        return None if until is None else until - now

    @property
    def retry_after(self) -> float:
        """Seconds after which it may be asked again, if it is left alone now."""
        return self.open_seconds or self._settings.providers.breaker_pause_seconds

    def admit(self) -> bool:
        """Whether it may be asked now; of those that ask when it was left alone, only a few."""
        return self._breaker.admit(time.monotonic())

    async def transcribe(self, rewound: Rewound, *, last: bool) -> Heard:
        """Return what it hears, and learn from how that goes. Raises as Provider.transcribe does."""
        began = time.monotonic()
        try:
            heard = await self._ask(rewound, last=last)
        except (ProviderFailedError, ProviderRefusedError) as error:
            failed = isinstance(error, ProviderFailedError)
            self._note("failed" if failed else "refused", began, failed=failed or self._slow(began, rewound))
            raise
        except asyncio.CancelledError:
            if self._slow(began, rewound, given_up=True):  # nobody wanted to wait for it any longer
                self._learn(began, failed=True)
            raise
        self._note("ok", began, failed=self._slow(began, rewound))
        metrics.PROVIDER_COST.labels(self.name).inc(heard.cost)
        return heard

    async def hear(self, recording: Recording) -> Heard:
        """Return what it hears, where nobody else would be asked; raises what it raises."""
        began = time.monotonic()
        self.places.take()
        try:
            heard = await self.provider.transcribe(recording)
        finally:
            self.places.leave()
        self._ok.inc()
        self._seconds.observe(time.monotonic() - began)
        self._audio_seconds.inc(max((each.pieces[-1].end for each in heard.windows), default=0) / SAMPLE_RATE)
        return heard

    async def look(self) -> None:
        """Ask it whether it is well."""
        self.note_health(await trouble_of(self.provider))

    def note_health(self, trouble: str | None) -> None:
        """Take note of what is wrong with it, if anything."""
        if (trouble is None) != (self.trouble is None):
            if trouble is None:
                log.info("a provider is well again", provider=self.name)
            else:
                log.warning("a provider is not well", provider=self.name, trouble=trouble)
        self.trouble = trouble
        metrics.PROVIDER_HEALTHY.labels(self.name).set(trouble is None)

    async def _ask(self, rewound: Rewound, *, last: bool) -> Heard:
        try:
            return checked(await self.provider.transcribe(rewound.again(last=last, clocked=self.name != LOCAL)))
        except (Exception, asyncio.CancelledError, SystemExit) as error:
            if isinstance(error, asyncio.CancelledError) and _cancelled():
                raise  # nobody waits for it any more; else it is a bug of the provider
            if isinstance(rewound.fault, Exception):  # whatever the provider made of it
                raise rewound.fault from error
            found = first_of(error)
            if isinstance(found, JobError | ServiceError):
                raise found from error
            if self.name == LOCAL:  # a bug of ours
                raise
            # Its text may hold what the provider alone should know: where it happened has to do.
            log.error("a provider broke", provider=self.name, error=type(found).__name__, at=_place(found))
            raise ProviderFailedError(f"unexpected {type(found).__name__}") from error

    def _slow(self, began: float, rewound: Rewound, *, given_up: bool = False) -> bool:
        """Whether it takes too long; of one with a queue of its own nobody can tell."""
        if self._queues:
            return False
        settings = self._settings.providers
        longest = max(settings.slow_seconds, settings.slow_factor * rewound.seconds)
        if given_up:  # probably for the attempt's deadline
            longest = min(longest, ALMOST * max(self._settings.pipeline.attempt_seconds, 2 * rewound.seconds))
        return time.monotonic() - began > longest

    def _note(self, result: str, began: float, *, failed: bool) -> None:
        metrics.PROVIDER_JOBS.labels(self.name, result).inc()
        metrics.PROVIDER_SECONDS.labels(self.name).observe(time.monotonic() - began)
        self._learn(began, failed=failed)

    def _learn(self, began: float, *, failed: bool) -> None:
        now = time.monotonic()
        # Of jobs that wait in vain for minutes, one after the other, few end within `breaker_seconds`.
        within = self._settings.providers.breaker_jobs * (now - began)
        if not self._breaker.observe(failed=failed, began=began, now=now, within=within):
            return
        if (seconds := self.open_seconds) is not None:
            log.warning(
                "a provider is left alone: too many of its jobs fail", provider=self.name, seconds=round(seconds)
            )
        else:
            log.info("a provider does its work again", provider=self.name)


@asynccontextmanager
async def opened(provider: Provider) -> AsyncIterator[None]:
    """Open it, and close it in the end. Raises ServiceError and ConfigError only: other texts may hold a secret."""
    try:
        await provider.__aenter__()
    except Exception as error:  # noqa: BLE001 (somebody else's code)
        if isinstance(found := first_of(error), ServiceError | ConfigError):
            raise found from None
        problem = f"{type(error).__name__} at {_place(error)}"
        raise ServiceError(f"open the provider {provider.name}", problem) from None
    try:
        yield
    finally:
        try:
            await provider.__aexit__(None, None, None)
        except Exception as error:  # noqa: BLE001 (somebody else's code; the others are closed all the same)
            log.error("a provider did not close", provider=provider.name, error=type(error).__name__, at=_place(error))


async def trouble_of(provider: Provider) -> str | None:
    """Return what is wrong with it, if anything, as it says itself."""
    try:
        async with asyncio.timeout(HEALTH_SECONDS):
            said = await provider.health()
    except TimeoutError:
        return f"it did not say within {HEALTH_SECONDS:g} s whether it is well"
    except Exception as error:  # noqa: BLE001 (somebody else's code; its text may hold a secret)
        return f"it cannot say whether it is well: {type(error).__name__}"
    return None if said is None else str(said)[:MAX_REASON]


def next_of(members: Sequence[Member]) -> Member:
    """Return whose turn it is by their weights: smooth weighted round robin, as nginx has it."""
    for each in members:
        each.turn += each.weight
    chosen = max(members, key=lambda each: each.turn)
    chosen.turn -= sum(each.weight for each in members)
    return chosen


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _place(error: BaseException) -> str:
    """Return file and line where it was raised."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return "" if traceback is None else f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
