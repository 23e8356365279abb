"""Who is told of an ended job; and the loop that tells them, a few requests at a time, until somebody takes it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Any, Self
from uuid import UUID, uuid5

import structlog
from aiohttp.abc import AbstractResolver

from v2td import metrics, store
from v2td.config import Settings
from v2td.errors import ServiceError
from v2td.intake import Result
from v2td.jobs import Coordinates, SourceRecord
from v2td.logs import get_logger
from v2td.messages import Known, jobs_of
from v2td.retry import Backoff
from v2td.store import webhooks
from v2td.store.webhooks import Claimed, Notice
from v2td.webhooks import payload
from v2td.webhooks.outbox import BACKOFF, Outbox
from v2td.webhooks.post import Answer, Poster, host_of, open_poster, rules

log = get_logger(__name__)

NAMESPACE = UUID("f9793e26-5da7-515f-98dd-8d66a05068c0")
PER_HOST = 4  # requests under way to one host
PER_TROUBLED_HOST = 1  # to one whose last answer was none, or no good one
TROUBLED_AT_MOST = 1000  # hosts that are remembered so
POLL_SECONDS = 5.0  # for what other instances noted and did not send
LEASE_SECONDS = 30.0  # beyond the timeout: for looking up what is sent, and noting how it went
LAST_SECONDS = 2.0  # for requests under way when the daemon stops
COUNT_SECONDS = 15.0
NOWHERE = Coordinates("", "", 0, 0, 0)

_DELIVERED, _FAILED, _DEAD = (metrics.WEBHOOKS.labels(each) for each in ("delivered", "failed", "dead"))


@dataclass(frozen=True, slots=True)
class Ending:
    """That a job ended: `record` is the row id of what asked for it, which is the job's but for replays and redos.

    `url` is who the message wants told, and `metadata` what it had to say.
    """

    result: Result
    record: UUID
    url: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


class Webhooks:
    """Notes who is to be told, and tells them; an async context manager. Without webhooks.secret it does nothing."""

    def __init__(self, settings: Settings, database: store.Database, resolver: AbstractResolver | None = None) -> None:
        self._all = settings
        self._settings = settings.webhooks
        self._known = Known.of(settings)
        self._database = database
        self._resolver = resolver
        self._outbox = Outbox(database)
        self._host_of = lru_cache(maxsize=1024)(lambda url: host_of(url, rules(settings)))
        self._woken = asyncio.Event()
        self._under_way: dict[asyncio.Task[None], str] = {}
        self._troubled: set[str] = set()
        self._looked_at = ""  # the host up to which those that wait were looked through; nothing: begin anew
        self._backoff = Backoff(self._settings.initial_seconds, 2, self._settings.max_seconds)
        self._random = Random()  # noqa: S311 (jitter)
        self._stack = contextlib.AsyncExitStack()
        self._poster: Poster | None = None

    @property
    def wanted(self) -> bool:
        """Whether anybody may be told of anything."""
        return self._settings.secret is not None

    def tells(self, url: str | None) -> bool:
        """Say whether a job's end may be told to anybody: `url` is whom its message wants told."""
        return self.wanted and (url is not None or self._settings.url is not None)

    async def __aenter__(self) -> Self:
        if self.wanted:
            self._poster = await self._stack.enter_async_context(open_poster(self._all, self._resolver))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def note(self, endings: Sequence[Ending]) -> None:
        """Return once it is durable who is to be told; what was noted before is not noted again.

        Waits for Postgres however long it is away.
        """
        if notices := [notice for each in endings for notice in self._notices(each)]:
            await self._outbox.note(notices)
            self._woken.set()

    def asked_by(self, record: SourceRecord) -> dict[int, tuple[str | None, dict[str, Any]]]:
        """Return whom a record wants told, and its metadata, by record_index: for outcomes that are there already."""
        jobs = jobs_of(record, NOWHERE, settings=self._all.messages, known=self._known)
        return {each.coordinates.record_index: (each.webhook_url, each.metadata) for each in jobs}

    def _notices(self, ending: Ending) -> list[Notice]:
        job, revision, event = ending.result.id, ending.result.revision, ending.result.status
        urls = {} if ending.url is None else {ending.url: None}  # a dict keeps the order
        if self._settings.url is not None and event in self._settings.events:
            urls[self._settings.url] = None
        metadata = ending.metadata if event == "failed" else None
        return [
            Notice(
                id=uuid5(NAMESPACE, f"{ending.record} {job} {revision} {event} {url}"),
                job=job,
                revision=revision,
                event=event,
                url=url,
                host=self._host_of(url),
                metadata=metadata,
            )
            for url in urls
        ]

    async def run(self) -> None:
        """Send for ever what is due, of all instances; cancelled, requests under way get a moment to end."""
        if self._poster is None:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._count())
            try:
                await self._send(group, self._poster)
            except asyncio.CancelledError:
                if self._under_way:
                    await asyncio.wait([*self._under_way], timeout=LAST_SECONDS)
                raise

    async def _send(self, group: asyncio.TaskGroup, poster: Poster) -> None:
        failures = 0
        while True:
            if not self._looked_at:  # who wakes us while hosts are looked through may mean one that was passed
                self._woken.clear()
            try:
                pause = await self._begin_what_is_due(group, poster)
            except ServiceError as error:
                failures += 1
                log.warning("webhooks not looked up yet", error=str(error), tries=failures)
                await asyncio.sleep(BACKOFF.pause(failures, self._random))
                continue
            failures = 0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()

    async def _begin_what_is_due(self, group: asyncio.TaskGroup, poster: Poster) -> float:
        """Begin as many requests as may be under way; return after how many seconds to look again, unless woken."""
        free = self._settings.concurrency - len(self._under_way)
        if free <= 0:
            return POLL_SECONDS
        hosts = await webhooks.hosts(self._database, self._looked_at)
        more = len(hosts) == webhooks.HOSTS_AT_ONCE
        self._looked_at = max(hosts) if more else ""
        busy = Counter(self._under_way.values())
        room = {host: self._room(host) - busy[host] for host in hosts}
        due = {host: left for host, left in room.items() if left > 0 and hosts[host] <= 0}
        if due:
            lease = self._settings.timeout_seconds + LEASE_SECONDS
            for each in await webhooks.claim(self._database, free, due, lease):
                task = group.create_task(self._tell(each, poster, time.monotonic() + lease))
                self._under_way[task] = each.host
                task.add_done_callback(self._ended)
        if more:
            return 0.0
        soon = [seconds for host, seconds in hosts.items() if room[host] > 0 and host not in due]
        return min([POLL_SECONDS, *soon])

    def _room(self, host: str) -> int:
        return PER_TROUBLED_HOST if host in self._troubled else PER_HOST

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._woken.set()

    async def _tell(self, claimed: Claimed, poster: Poster, until: float) -> None:
        """Make one attempt and note how it went; one that is cancelled goes back at once. `until` it is ours."""
        names = {"job": str(claimed.job), "webhook": str(claimed.id), "host": claimed.host}
        with structlog.contextvars.bound_contextvars(**names):
            answer, tries = None, 0
            while time.monotonic() < until:  # then it is another's, and goes out once more
                try:
                    answer = answer or await self._attempt(claimed, poster)
                    await self._note(claimed, answer)
                except ServiceError as error:
                    tries += 1
                    log.warning("a webhook waits for Postgres", error=str(error), tries=tries)
                    await asyncio.sleep(BACKOFF.pause(tries, self._random))
                except asyncio.CancelledError:
                    with contextlib.suppress(ServiceError, TimeoutError):
                        async with asyncio.timeout(1):
                            await (
                                self._note(claimed, answer) if answer else webhooks.give_back(self._database, claimed)
                            )
                    raise
                else:
                    return

    async def _attempt(self, claimed: Claimed, poster: Poster) -> Answer:
        try:
            body = await payload.body_of(self._database, claimed)
            if body is None:
                return Answer("dead", error="what it tells of is gone: done again since, or deleted")
            return await poster.post(claimed.url, str(claimed.id), body)
        except ServiceError:
            raise
        except Exception:
            log.exception("a webhook could not be sent")
            return Answer("failed", error="a fault of v2td itself: see its log")

    async def _note(self, claimed: Claimed, answer: Answer) -> None:
        if answer.how == "delivered":
            await webhooks.end(self._database, claimed, "delivered", None)
            self._troubled.discard(claimed.host)
            _DELIVERED.inc()
            log.debug("told", status=answer.status, attempts=claimed.attempts)
            return
        error = answer.error or ""
        if answer.how == "failed" and len(self._troubled) < TROUBLED_AT_MOST:
            self._troubled.add(claimed.host)
        if answer.how == "failed" and claimed.attempts < self._settings.attempts:
            pause = self._backoff.pause(claimed.attempts, self._random, answer.asked)
            await webhooks.postpone(self._database, claimed, pause, error)
            _FAILED.inc()
            log.info("not told yet", error=error, attempts=claimed.attempts, pause_seconds=round(pause, 2))
            return
        await webhooks.end(self._database, claimed, "dead", error)
        _DEAD.inc()
        log.warning("told nobody: given up", error=error, attempts=claimed.attempts)

    async def _count(self) -> None:
        """Keep the gauge of those that wait, for ever."""
        while True:
            try:
                metrics.WEBHOOKS_WAITING.set(await webhooks.waiting(self._database))
            except ServiceError as error:
                log.warning("webhooks not counted", error=str(error))
            await asyncio.sleep(COUNT_SECONDS)
