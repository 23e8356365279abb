"""The composition root: opens the rooms in order, runs them, drains on a signal, closes them in reverse."""

from __future__ import annotations

import asyncio
import os
import signal

from v2td import duties, failpoints, systemd
from v2td.config import LoadedConfig, Settings
from v2td.errors import ServiceError, first_of
from v2td.logs import get_logger
from v2td.opening import Daemon, admin_endpoint, opened

log = get_logger(__name__)

FLUSH_SECONDS = 5.0  # after the drain, for what Postgres has not taken yet
EXTEND_SECONDS = 15.0  # while draining, ask systemd for this much more time, three times as often


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
        async with opened(settings) as daemon, admin_endpoint(daemon):
            duties.tune_garbage_collection()
            signals.running = True
            await _serve(daemon, signals.stop)
    except ExceptionGroup as group:
        ours, others = group.split(ServiceError)
        if ours is None or others is not None:  # a bug among them keeps its traceback
            raise
        raise first_of(ours) from None


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
