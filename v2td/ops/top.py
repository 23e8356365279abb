"""`v2td top`: looks at Kafka, Postgres and daemons again and again, each by itself, so that one that is away is told
and holds nobody up.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import psutil

from v2td.config import Settings
from v2td.errors import ServiceError, first_of
from v2td.ops import top_database
from v2td.ops.top_admin import AdminSource, usual_address
from v2td.ops.top_figures import Figures
from v2td.ops.top_kafka import KafkaSource
from v2td.ops.top_rates import figures
from v2td.ops.top_seen import Away, DaemonSeen, DatabaseSeen, Look, MachineSeen
from v2td.store import Database, open_database
from v2td.store.faults import server_of

LOOK_SECONDS = 5.0  # longest wait for a source
RATE_SECONDS = 60.0  # rates are those of so long ago until now, or of one interval where that is longer
WINDOW_SECONDS = 300.0  # outcomes of so long ago until now, or of one interval where that is longer
REPORT_SECONDS = 11.0  # by then every instance has reported once more
T = TypeVar("T")


class Monitor:
    """Remembers its last looks; made by `open_monitor`. Only one task may look."""

    def __init__(
        self,
        settings: Settings,
        *,
        kafka: KafkaSource,
        database: Database,
        daemons: Sequence[AdminSource],
        usual: str | None,
        interval_seconds: float,
    ) -> None:
        self._settings = settings
        self._kafka = kafka
        self._database = database
        self._daemons = daemons
        self._usual = usual  # an address nobody asked for: only told of once it has answered
        self._window_seconds = max(WINDOW_SECONDS, interval_seconds)
        self._looks: deque[Look] = deque()

    async def look(self) -> Figures:
        """Look at everything at once; what does not answer within LOOK_SECONDS is away. Raises nothing of theirs."""
        at, epoch, machine = time.monotonic(), time.time(), await asyncio.to_thread(_machine)
        kafka, database, *daemons = await asyncio.gather(
            _bounded(self._kafka.look()),
            _bounded(top_database.look(self._database, self._window_seconds)),
            *(_bounded(each.look()) for each in self._daemons),
        )
        seen: dict[str, DaemonSeen | Away] = {}
        for source, found in zip(self._daemons, daemons, strict=True):
            assert isinstance(found, DaemonSeen | Away)
            if isinstance(found, DaemonSeen) and source.address == self._usual:
                self._usual = None
            if source.address != self._usual:
                seen[source.address] = found
        assert not isinstance(kafka, DatabaseSeen | DaemonSeen)
        assert isinstance(database, DatabaseSeen | Away)
        self._looks.append(Look(at, epoch, machine, kafka, database, seen))
        while len(self._looks) > 2 and at - self._looks[1].at >= RATE_SECONDS:
            self._looks.popleft()
        return figures(
            tuple(self._looks),
            kafka=", ".join(self._settings.kafka.bootstrap_servers),
            database=server_of(self._settings.database.dsn.get_secret_value()),
            group=self._settings.kafka.group_id,
        )

    async def once(self, interval_seconds: float | None) -> Figures:
        """Look twice, so that there are rates.

        `interval_seconds` is the time between; None: as long as it takes every instance to report again, at most
        REPORT_SECONDS, since without that its CPU time is not known.
        """
        began = time.monotonic()
        found = await self.look()
        if not found.reached:
            return found
        while True:
            await asyncio.sleep(1.0 if interval_seconds is None else interval_seconds)
            found = await self.look()
            known = all(each.cpu_percent is not None for each in found.instances if not each.stale)
            if interval_seconds is not None or known or time.monotonic() - began >= REPORT_SECONDS:
                return found


async def _bounded(look: Awaitable[T]) -> T | Away:
    """Return what was seen, or why nothing was."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await look
    except TimeoutError:
        return Away(f"no answer within {LOOK_SECONDS:g} s")
    except ServiceError as error:
        return Away(" ".join(error.detail.split()))


def _machine() -> MachineSeen:
    times, memory = psutil.cpu_times(), psutil.virtual_memory()
    busy = sum(times) - times.idle - times.iowait - times.guest - times.guest_nice  # those two are in user and nice too
    return MachineSeen(psutil.cpu_count() or 1, busy, memory.total - memory.available, memory.total)


@asynccontextmanager
async def open_monitor(
    settings: Settings, *, topics: Collection[str] | None, admin: Sequence[str], interval_seconds: float
) -> AsyncIterator[Monitor]:
    """Make a monitor of these settings' group; nothing is asked yet.

    `topics` None: those that the group has committed. `admin` names addresses of daemons (AdminSource); without any
    the daemon of the settings is asked, and nothing is said of it until it has answered.
    """
    kafka = settings.kafka.model_copy(update={"request_timeout_seconds": LOOK_SECONDS})
    bounds = {"connect_seconds": LOOK_SECONDS, "statement_seconds": LOOK_SECONDS, "pool_max": 2}
    database = settings.database.model_copy(update=bounds)
    usual = None if admin else usual_address(settings.admin)
    addresses = list(dict.fromkeys(admin)) or ([] if usual is None else [usual])
    try:
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            pool = await enter(open_database(database, "v2td top", read_only=True))
            source = await enter(KafkaSource(kafka, topics))
            daemons = [await enter(AdminSource(each, settings.admin)) for each in addresses]
            yield Monitor(
                settings,
                kafka=source,
                database=pool,
                daemons=daemons,
                usual=usual,
                interval_seconds=interval_seconds,
            )
    except BaseExceptionGroup as group:
        raise first_of(group) from None
