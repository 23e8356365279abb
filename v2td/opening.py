"""What a daemon is made of: the rooms are opened in order, and closed in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from v2td import __version__, admin, duties, store, tracing
from v2td.attempt import Hearers
from v2td.board import Board
from v2td.commands import Commands
from v2td.config import AdminSettings, Settings
from v2td.debugging import Debugging
from v2td.delivery import Delivery
from v2td.desk import Desk
from v2td.engine import Engine, Plan, plan_slots, verified_model
from v2td.errors import ServiceError
from v2td.fetch import Downloader
from v2td.inspection import Inspection
from v2td.intake import DeadLetters, Intake, ResultsTopic
from v2td.limit import max_prepared
from v2td.local import Local
from v2td.logs import get_logger
from v2td.ondemand import OnDemand
from v2td.outputs import Outputs
from v2td.pipeline import Pipeline, Rooms
from v2td.progress import Journals
from v2td.providers import Providers
from v2td.replays import Replays
from v2td.results import ResultCache
from v2td.speech import Decoders, decoder_count
from v2td.watch import Watch
from v2td.webhooks import Webhooks

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Daemon:
    """Everything that is open while the daemon runs."""

    settings: Settings
    plan: Plan
    database: store.Database
    engine: Engine
    providers: Providers
    writer: store.Writer
    journals: Journals
    webhooks: Webhooks
    commands: Commands
    pipeline: Pipeline
    on_demand: OnDemand | None  # None: not served
    desk: Desk | None  # the same
    intake: Intake
    watch: Watch
    inspection: Inspection
    debugging: Debugging | None  # None: not to be had
    began: float  # time.monotonic()

    def not_alive(self) -> str | None:
        """Say what hangs; None when nothing does. Kafka and Postgres being away is no reason."""
        if self.engine.stalled(duties.STALL_SECONDS):
            return "a slot is not looked after"
        return "the poll loop hangs" if self.intake.stalled(duties.STALL_SECONDS) else None

    def not_ready(self) -> str | None:
        """Say why no work is done now; None when it is."""
        return self.not_serving() or self.commands.paused

    def not_serving(self) -> str | None:
        """Say why what comes by HTTP is not done now; None when it is: pausing the intake does not concern it."""
        if not self.intake.joined.is_set():
            return "the consumer group is not joined yet"
        if self.intake.stopping:
            return "stopping"
        if self.pipeline.circuit_open():
            return "too many jobs fail: intake pauses, see the log"
        return None if self.writer.healthy.is_set() else "Postgres is in trouble"

    def status(self) -> dict[str, Any]:
        """Return what /status shows."""
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime_seconds": round(time.monotonic() - self.began, 1),
            "ready": self.not_ready() is None,
            "not_ready_because": self.not_ready(),
            "paused": self.commands.paused,
            "model": self.settings.engine.model,
            "in_flight": self.intake.in_flight,
            "tasks": len(asyncio.all_tasks()),
            "database_healthy": self.writer.healthy.is_set(),
            "providers": self.providers.status(),
            "partitions": self.intake.status(),
            **self.engine.status(),
        }


def admin_endpoint(daemon: Daemon) -> contextlib.AbstractAsyncContextManager[object]:
    """Return the admin server, or nothing when it is turned off."""
    settings = daemon.settings.admin
    if not settings.enabled:
        return contextlib.nullcontext()
    view = admin.View(daemon.not_alive, daemon.not_ready, daemon.status)
    return admin.serve(settings, view, _tables(daemon))


def _tables(daemon: Daemon) -> list[admin.Table]:
    """Return what is served beside the daemon's state."""
    tables: list[admin.Table] = []
    if daemon.on_demand is not None:
        tables.append(admin.OpenAIApi(daemon.on_demand, daemon.not_serving, daemon.settings.api, daemon.settings.admin))
    if daemon.desk is not None:
        tables.append(admin.JobsApi(daemon.desk, daemon.settings.api, daemon.settings.admin))
    if daemon.debugging is not None:
        tables.append(admin.DebugApi(daemon.debugging))
    if daemon.settings.admin.page:
        tables.append(admin.PageApi(daemon.watch, daemon.inspection, daemon.settings.admin))
    return tables


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Daemon]:
    """Open everything that a job needs: the slow and the likely to fail first."""
    model = await asyncio.to_thread(verified_model, settings.engine)
    layout, refit = plan_slots(settings.engine, model)
    log.info("slots planned", slots=len(layout.slots), reasons=layout.reasons)
    await _schema_is_there(settings)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        tracer = await enter(tracing.opened(settings.tracing, settings.kafka))  # first, to hear of the last commit
        database = await enter(store.open_database(settings.database))
        async with database.acquire() as connection:
            await store.ensure_partitions(connection, settings.database.partitions_ahead)
        downloader = await enter(Downloader(settings.fetch, settings.s3, cache=settings.cache))
        count = decoder_count(settings.speech, len(layout.slots))
        decoders = await enter(Decoders(settings.speech, count, downloader.folders))
        engine = await enter(Engine(settings.engine, settings.quality, layout, model, refit))
        journals = Journals(database, settings.engine.model, settings.pipeline.progress_seconds)
        local = Local(engine, journals, settings)
        providers = await enter(Providers(settings, local))
        cache = ResultCache(database, settings.cache, accept_truncated=settings.speech.truncated == "accept")
        results = await enter(cache) if settings.cache.results else None
        outputs = Outputs(settings.output, downloader.store)
        dead_letters = await enter(DeadLetters(settings.kafka))
        results_topic = await enter(ResultsTopic(settings.kafka))
        writer = store.Writer(database, settings.database, dead_letters.send)
        webhooks = await enter(Webhooks(settings, database))
        delivery = Delivery(dead_letters, writer, results_topic, database, webhooks)
        hearers = Hearers(downloader, decoders, local, providers, results, journals)
        commands = Commands(database, settings)
        await commands.read()  # before anything is polled: the intake may be paused
        rooms = Rooms(hearers, outputs, delivery, journals, Replays(database, settings), commands)
        board = Board([] if tracer is None else [tracer])
        pipeline = Pipeline(rooms, settings, max_prepared(settings, len(layout.slots)), board)
        on_demand = OnDemand(pipeline.attempts, downloader, settings) if settings.api.openai else None
        intake = await enter(
            Intake(
                settings.kafka,
                pipeline.handle,
                journals.look_back,
                max_in_flight=settings.pipeline.max_in_flight,
                blocked=lambda: not writer.healthy.is_set() or pipeline.circuit_open() or commands.paused is not None,
                before_revoke=journals.save,
                skipped=pipeline.note_unreadable,
                committed=pipeline.board.committed,
            )
        )
        desk = Desk(settings, database, pipeline.board, intake.committed_offset)
        yield Daemon(
            settings=settings,
            plan=layout,
            database=database,
            engine=engine,
            providers=providers,
            writer=writer,
            journals=journals,
            webhooks=webhooks,
            commands=commands,
            pipeline=pipeline,
            on_demand=on_demand,
            desk=await enter(desk) if settings.api.jobs and settings.admin.token else None,
            intake=intake,
            watch=Watch(pipeline.board, settings),
            debugging=_debugging(settings.admin, engine, decoders),
            inspection=Inspection(pipeline.board, database, downloader),
            began=time.monotonic(),
        )


def _debugging(settings: AdminSettings, engine: Engine, decoders: Decoders) -> Debugging | None:
    """Return what looks into the daemon; for who sits at this machine and has the token."""
    if not (settings.enabled and settings.debug and settings.local and settings.token):
        return None
    return Debugging(lambda: {**engine.children(), **decoders.children()}, engine.status)


async def _schema_is_there(settings: Settings) -> None:
    dsn = settings.database.dsn.get_secret_value()
    if settings.database.migrate_on_start:
        if applied := await store.upgrade(dsn):
            log.info("schema upgraded", versions=applied)
    elif (version := await store.schema_version(dsn)) != store.latest_version():
        raise ServiceError(
            "check the schema",
            f"the database has version {version}, this v2td works with {store.latest_version()}",
            "run `v2td db upgrade`",
        )
