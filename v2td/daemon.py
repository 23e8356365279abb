"""The composition root: opens the rooms in order, runs them, drains on a signal, closes them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from v2td import __version__, admin, duties, failpoints, store, systemd, tracing
from v2td.attempt import Hearers
from v2td.board import Board
from v2td.commands import Commands
from v2td.config import AdminSettings, LoadedConfig, Settings
from v2td.debugging import Debugging
from v2td.delivery import Delivery
from v2td.desk import Desk
from v2td.engine import Engine, Plan, plan_slots, verified_model
from v2td.errors import ServiceError, first_of
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

FLUSH_SECONDS = 5.0  # after the drain, for what Postgres has not taken yet
EXTEND_SECONDS = 15.0  # while draining, ask systemd for this much more time, three times as often


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
        if not self.intake.joined.is_set():
            return "the consumer group is not joined yet"
        if self.intake.stopping:
            return "stopping"
        if self.pipeline.circuit_open():
            return "too many jobs fail: intake pauses, see the log"
        if (paused := self.commands.paused) is not None:
            return paused
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


async def run(config: LoadedConfig) -> None:
    """Run until SIGTERM or SIGINT, then drain; ServiceError when we cannot go on."""
    signals = _Signals()
    _arm_failpoints(config.settings)
    systemd.notify(systemd.status("starting: loading the model, joining the group"))
    try:
        await _work(config.settings, signals)
    except asyncio.CancelledError:
        if not signals.stopped_early:
            raise
    log.info("stopped")


def _arm_failpoints(settings: Settings) -> None:
    """Arm what the environment says, children included, in a test's configuration; else see that nobody does."""
    if not settings.testing.failpoints:
        os.environ.pop(failpoints.ARMED_VARIABLE, None)
        if os.environ.pop(failpoints.VARIABLE, None):
            log.warning("ignored: testing.failpoints is false", variable=failpoints.VARIABLE)
        return
    try:
        log.warning("failpoints armed", places=failpoints.arm())
    except ValueError as error:
        raise ServiceError("arm failpoints", str(error)) from error


async def _work(settings: Settings, signals: _Signals) -> None:
    try:
        async with _opened(settings) as daemon, admin_endpoint(daemon):
            duties.tune_garbage_collection()
            signals.running = True
            await _serve(daemon, signals.stop)
    except ExceptionGroup as group:
        ours, others = group.split(ServiceError)
        if ours is None or others is not None:  # a bug among them keeps its traceback
            raise
        raise first_of(ours) from None


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
        tables.append(admin.OpenAIApi(daemon.on_demand, daemon.not_ready, daemon.settings.api, daemon.settings.admin))
    if daemon.desk is not None:
        tables.append(admin.JobsApi(daemon.desk, daemon.settings.api, daemon.settings.admin))
    if daemon.debugging is not None:
        tables.append(admin.DebugApi(daemon.debugging))
    if daemon.settings.admin.page:
        tables.append(admin.PageApi(daemon.watch, daemon.inspection, daemon.settings.admin))
    return tables


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Daemon]:
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


async def _serve(daemon: Daemon, stop: asyncio.Event) -> None:
    """Work until `stop`, then: no more intake, drain, flush, commit."""
    async with asyncio.TaskGroup() as group:
        background = [
            group.create_task(daemon.engine.run()),
            group.create_task(daemon.journals.run()),
            group.create_task(daemon.commands.run()),
            group.create_task(daemon.providers.run()),
            group.create_task(daemon.webhooks.run()),
            group.create_task(daemon.watch.run(daemon.status)),
            *([] if daemon.debugging is None else [group.create_task(daemon.debugging.run())]),
            group.create_task(duties.measure_loop_lag()),
            group.create_task(duties.feed_watchdog(daemon.not_alive)),
            group.create_task(duties.keep_tables(daemon.database, daemon.settings)),
            group.create_task(
                duties.report_instance(daemon.database, daemon.settings.kafka, len(daemon.plan.slots), daemon.intake)
            ),
            group.create_task(_announce(daemon)),
        ]
        writing = group.create_task(daemon.writer.run())
        consuming = group.create_task(daemon.intake.run())
        stopping = group.create_task(stop.wait())
        await stopping
        drain_seconds = daemon.settings.pipeline.drain_seconds
        log.info("stopping", drain_seconds=drain_seconds)
        systemd.notify("STOPPING=1", systemd.status("draining"))
        await failpoints.reach("drain.begin")
        daemon.intake.stop(drain_seconds)
        await _extending_timeout(consuming)
        await failpoints.reach("drain.done")
        _close_within(FLUSH_SECONDS + daemon.settings.pipeline.stop_seconds)
        daemon.writer.close()
        # What still waits here belongs to records that are not committed: they are delivered again.
        await asyncio.wait([writing], timeout=FLUSH_SECONDS)
        writing.cancel()
        for task in background:
            task.cancel()


async def _announce(daemon: Daemon) -> None:
    await daemon.intake.joined.wait()
    log.info("ready", topics=daemon.settings.kafka.topics, group=daemon.settings.kafka.group_id)
    systemd.notify("READY=1", systemd.status(f"{len(daemon.plan.slots)} slots, model {daemon.settings.engine.model}"))


async def _extending_timeout(consuming: asyncio.Task[None]) -> None:
    """Wait for the drain, telling systemd that it goes on."""
    while not consuming.done():
        systemd.notify(systemd.extend_timeout(EXTEND_SECONDS))
        await asyncio.wait([consuming], timeout=EXTEND_SECONDS / 3)


class _Signals:
    """The first SIGTERM or SIGINT sets `stop`, or ends a start; the second ends this task, and so everything, now."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.running = False
        self.stopped_early = False
        self._loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        assert self._main is not None
        if not self.stop.is_set():
            log.info("signal", signal=number.name)
            self.stop.set()
            if not self.running:
                self.stopped_early = True
                self._main.cancel()
            return
        log.warning("second signal: stopping now; unfinished records will be delivered again", signal=number.name)
        self._main.cancel()
        self._loop.call_later(1.0, os._exit, 128 + number)


def _close_within(seconds: float) -> None:
    """What is to be durable and committed is: what hangs while it is flushed and closed may be left behind."""

    def give_up() -> None:
        log.warning("closing took too long; leaving", seconds=seconds)
        os._exit(0)

    asyncio.get_running_loop().call_later(seconds, give_up)
