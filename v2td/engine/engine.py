"""The engine, seen from the event loop: windows of many jobs go in, text comes out of pinned processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from structlog.contextvars import get_contextvars

from v2td import metrics
from v2td.child import Child, ChildDied
from v2td.config import EngineSettings
from v2td.engine import worker
from v2td.engine.scheduler import WindowQueue
from v2td.engine.topology import Plan
from v2td.engine.worker import ModelRequest, WindowRequest, WindowResult
from v2td.errors import ErrorClass, JobError
from v2td.jobs import SAMPLE_RATE, Options, Window, WindowTiming
from v2td.logs import get_logger

log = get_logger(__name__)

CRASHES_FORGIVEN = 1
SUPERVISE_SECONDS = 1.0  # how often an idle slot looks whether its process is alive


@dataclass(frozen=True, slots=True)
class Recognition:
    """What was heard in all windows of a job.

    `language` is None when there was no window to hear it in, its probability when it was given.
    """

    language: str | None
    language_probability: float | None
    windows: tuple[tuple[Window, WindowResult], ...]
    timings: tuple[WindowTiming, ...]


@dataclass(frozen=True, slots=True)
class Hearing:
    """One job for the engine. `began` is its time.monotonic(); `on_progress` is called whenever one of its
    windows starts or ends."""

    pcm: Path
    windows: AsyncIterator[Window]
    options: Options
    priority: int
    began: float
    on_progress: Callable[[], None]
    channels: int = 1


@dataclass(slots=True)
class _Item:
    job: int
    window: Window
    request: WindowRequest
    hearing: Hearing
    done: asyncio.Future[tuple[WindowResult, WindowTiming]]
    queued: float
    said: dict[str, Any]  # what the job's log lines say: lines about its windows say it too
    crashes: int = 0

    @property
    def seconds(self) -> float:
        return self.window.length / SAMPLE_RATE


class _Slot:
    def __init__(self, number: int, child: Child) -> None:
        self.number = number
        self.child = child
        self.state = "starting"
        self.seen = 0.0  # time.monotonic() of the last sign of life of its task


class Engine:
    """The slots and the queue of windows before them; an async context manager, ready when models are loaded.

    `run` serves the queue and has to run beside `transcribe`.
    """

    def __init__(self, settings: EngineSettings, plan: Plan, model: Path) -> None:
        self._settings = settings
        self._queue: WindowQueue[_Item] = WindowQueue()
        self._arrived = asyncio.Condition()
        self._stack = AsyncExitStack()
        self._slots = [
            _Slot(
                number,
                Child(
                    f"slot {number}",
                    worker.setup,
                    (ModelRequest(model, settings.device, settings.compute_type, slot.threads),),
                    cpus=slot.cpus,
                    load_seconds=settings.load_seconds,
                ),
            )
            for number, slot in enumerate(plan.slots)
        ]

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for slot in self._slots:
                stack.push_async_callback(slot.child.close)
            async with asyncio.TaskGroup() as group:
                for slot in self._slots:
                    group.create_task(self._restart(slot))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def run(self) -> None:
        """Serve the queue until cancelled; ServiceError when a slot cannot be brought up again."""
        async with asyncio.TaskGroup() as group:
            for slot in self._slots:
                group.create_task(self._serve(slot), name=slot.child.name)

    async def transcribe(self, hearing: Hearing) -> Recognition:
        """Return what is heard in the windows of a job, which are taken as they come.

        JobError inference_crash when a window killed its process twice; errors of `windows` pass through.
        Cancellation frees the windows that wait; those being served are served in vain.
        """
        options = hearing.options
        if options.language is None and not options.languages:
            options = replace(options, language=self._settings.default_language)
        heard: WindowResult | None = None  # the first one tells the others the language
        items: list[_Item] = []
        job = self._queue.add_job(hearing.priority)
        try:
            async for window in hearing.windows:
                items.append(item := self._item(job, window, hearing, options))
                await self._enqueue(item)
                if options.language is None:
                    heard, _timing = await item.done
                    options = replace(options, language=heard.language)
            results = await asyncio.gather(*(item.done for item in items))
        finally:
            for item in self._queue.remove_job(job):
                self._count_waiting(item, -1)
            for item in items:
                item.done.cancel()
        return Recognition(
            language=results[0][0].language if results else options.language,
            language_probability=heard.language_probability if heard else None,
            windows=tuple((item.window, result) for item, (result, _) in zip(items, results, strict=True)),
            timings=tuple(timing for _, timing in results),
        )

    def status(self) -> dict[str, Any]:
        """State of each slot, windows that wait."""
        return {
            "queued_windows": len(self._queue),
            "slots": [
                {
                    "slot": slot.number,
                    "state": slot.state,
                    "pid": slot.child.pid,
                    "restarts": slot.child.generation - 1,
                }
                for slot in self._slots
            ],
        }

    def stalled(self, seconds: float) -> bool:
        """Whether the task of an idle slot has not been seen for `seconds`; a busy one has its deadline."""
        now = time.monotonic()
        return any(slot.state == "idle" and now - slot.seen > seconds for slot in self._slots)

    def _item(self, job: int, window: Window, hearing: Hearing, options: Options) -> _Item:
        beam_size = options.beam_size or self._settings.beam_size
        request = WindowRequest(hearing.pcm, window.pieces, options, beam_size)
        done = asyncio.get_running_loop().create_future()
        return _Item(job, window, request, hearing, done, time.monotonic(), get_contextvars())

    async def _enqueue(self, item: _Item) -> None:
        self._queue.put(item.job, item)
        self._count_waiting(item, +1)
        async with self._arrived:
            self._arrived.notify()

    async def _next(self) -> _Item | None:
        """Return the next window, or None after SUPERVISE_SECONDS without one."""
        try:
            async with asyncio.timeout(SUPERVISE_SECONDS), self._arrived:
                await self._arrived.wait_for(lambda: len(self._queue) > 0)
                item = self._queue.take()
        except TimeoutError:
            return None
        if item is not None:
            self._count_waiting(item, -1)
            metrics.QUEUE_WAIT.observe(time.monotonic() - item.queued)
        return item

    async def _serve(self, slot: _Slot) -> None:
        while True:
            self._become(slot, "idle")
            item = await self._next()
            if not slot.child.alive:
                await self._replace(slot, "died")
            if item is not None:
                self._become(slot, "busy")
                await self._hear(slot, item)
            self._watch_memory(slot)
            if 0 < self._settings.max_rss_bytes < slot.child.usage()[0]:
                await self._replace(slot, "memory")

    async def _hear(self, slot: _Slot, item: _Item) -> None:
        if item.done.done():  # its job left while this slot was looking after its process
            return
        start = time.monotonic()
        deadline = self._settings.window_seconds_base + self._settings.window_seconds_factor * item.seconds
        item.hearing.on_progress()
        try:
            result = await slot.child.call(worker.transcribe, item.request, deadline_seconds=deadline)
        except ChildDied as death:
            await self._retry_elsewhere(item, death)
            await self._replace(slot, death.reason, item.said)
        except Exception as error:  # whatever the model raises fails this job alone
            log.exception("inference failed", slot=slot.number, **item.said)
            _fail(item, f"the model raised {type(error).__name__}: {error}")
        else:
            metrics.WINDOW_SECONDS.observe(result.seconds)
            timing = WindowTiming(
                item.window.index, slot.number, start - item.hearing.began, time.monotonic() - start, result.flags
            )
            if not item.done.done():
                item.done.set_result((result, timing))
                item.hearing.on_progress()

    async def _retry_elsewhere(self, item: _Item, death: ChildDied) -> None:
        item.crashes += 1
        if item.crashes > CRASHES_FORGIVEN:
            _fail(item, f"the process {death.reason} {item.crashes} times on window {item.window.index}")
            return
        before = len(self._queue)
        self._queue.put_back(item.job, item)
        if len(self._queue) > before:
            self._count_waiting(item, +1)
            async with self._arrived:
                self._arrived.notify()

    async def _replace(self, slot: _Slot, reason: str, said: dict[str, Any] | None = None) -> None:
        metrics.SLOT_RESTARTS.labels(reason).inc()
        log.warning("slot restarted", slot=slot.number, reason=reason, **(said or {}))
        self._become(slot, "starting")
        await slot.child.revive()

    async def _restart(self, slot: _Slot) -> None:
        self._become(slot, "starting")
        await slot.child.restart()
        self._become(slot, "idle")

    def _become(self, slot: _Slot, state: str) -> None:
        slot.state = state
        slot.seen = time.monotonic()
        for each in ("starting", "idle", "busy"):
            metrics.SLOTS.labels(each).set(sum(other.state == each for other in self._slots))

    def _watch_memory(self, slot: _Slot) -> None:
        rss, cpu = slot.child.usage()
        metrics.SLOT_RSS.labels(slot.number).set(rss)
        metrics.SLOT_CPU.labels(slot.number).set(cpu)

    def _count_waiting(self, item: _Item, sign: int) -> None:
        metrics.QUEUE_WINDOWS.set(len(self._queue))
        metrics.BACKLOG_AUDIO_SECONDS.inc(sign * item.seconds)


def _fail(item: _Item, reason: str) -> None:
    if not item.done.done():
        item.done.set_exception(JobError(ErrorClass.INFERENCE_CRASH, reason))
