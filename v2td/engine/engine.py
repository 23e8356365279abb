"""The engine, seen from the event loop: windows of many jobs go in, text comes out of pinned processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

from structlog.contextvars import get_contextvars

from v2td import metrics
from v2td.child import Child, ChildDied
from v2td.config import EngineSettings, QualitySettings
from v2td.engine import packing
from v2td.engine.batch import FULL_SECONDS, BatchResult, WindowRequest
from v2td.engine.estimate import CostEstimate, share_of_slot
from v2td.engine.hearing import BYTES_PER_SAMPLE, Hearing, Item, Recognition, said_by, weight_of
from v2td.engine.layout import Refit
from v2td.engine.models import SHORT_REFUSED, takes_short_windows
from v2td.engine.pool import SlotPool
from v2td.engine.scheduler import WindowQueue
from v2td.engine.slot import RESTING, Slot
from v2td.engine.topology import Plan
from v2td.engine.voice import Voice, recognition
from v2td.errors import ConfigError, ErrorClass, JobError
from v2td.jobs import SAMPLE_RATE, Window
from v2td.limit import ranked
from v2td.logs import get_logger

log = get_logger(__name__)

CRASHES_FORGIVEN = 1
SUPERVISE_SECONDS = 1.0  # how often an idle slot looks whether its process is alive
CPU_BATCH, GPU_BATCH = 8, 10  # windows: more gain little; ten are the second seed's
WORTH_CUTTING_SECONDS = 1.0  # a batch that ends sooner is left alone
BATCHES_AHEAD = 2  # of PCM that waits, for each slot


class Engine:
    """The slots and the queue of windows before them; an async context manager, ready when models are loaded.

    `run` serves the queue and has to run beside `transcribe`.
    """

    def __init__(
        self, settings: EngineSettings, quality: QualitySettings, plan: Plan, model: Path, refit: Refit | None = None
    ) -> None:
        if settings.window_mode == "short" and not takes_short_windows(model):
            raise ConfigError("engine.window_mode", "short", SHORT_REFUSED)
        self._settings = settings
        self._pool = SlotPool(settings, quality, plan, model, refit)
        self._slots: Sequence[Slot] = ()
        self._queue: WindowQueue[Item] = WindowQueue(oldest_share=settings.oldest_share)
        self._cost = CostEstimate()
        self._batch_windows = settings.batch_windows or (GPU_BATCH if settings.device == "cuda" else CPU_BATCH)
        self._arrived, self._taken = asyncio.Event(), asyncio.Event()  # a window, or the end of hope for one; one left
        self._waiting_bytes = 0
        self._waiting_bytes_max = settings.queue_bytes_max or int(
            BATCHES_AHEAD * len(plan.slots) * self._batch_windows * FULL_SECONDS * SAMPLE_RATE * BYTES_PER_SAMPLE
        )
        self._expected = 0  # jobs that are being decoded and have no window yet

    async def __aenter__(self) -> Self:
        self._slots = await self._pool.__aenter__()
        for slot in self._slots:
            self._cost.observe(1.0, slot.window_seconds)
        return self

    async def __aexit__(self, *details: object) -> None:
        await self._pool.__aexit__(*details)

    async def run(self) -> None:
        """Serve the queue until cancelled; ServiceError when a slot cannot be brought up again."""
        async with asyncio.TaskGroup() as group:
            for slot in self._slots:
                group.create_task(self._serve(slot), name=slot.child.name)

    async def transcribe(self, hearing: Hearing) -> Recognition:
        """Return what is heard in the windows of a job, which are taken as they come and as there is room for them.

        JobError inference_crash when a window killed its process twice; errors of `windows` pass through.
        Cancellation frees the windows that wait; those being served are served in vain.
        """
        job = self._queue.add_job(hearing.priority)
        with ranked(hearing.priority, partial(self._queue.set_priority, job)):
            return await self._hear_all(job, hearing)

    async def _hear_all(self, job: int, hearing: Hearing) -> Recognition:
        items: list[Item] = []
        voices: dict[int | None, Voice] = {}

        def enqueue(request: WindowRequest, final: bool) -> Item:
            items.append(item := self._item(job, request, hearing, follows=bool(items), final=final))
            if not item.resume():
                self._enqueue(item)
            return item

        try:
            window = await self._first_window(hearing)
            while window is not None:
                voice = voices.get(window.channel) or Voice(hearing, self._settings, enqueue)
                voices[window.channel] = voice
                await voice.add(window)
                for item in items:
                    item.raise_failure()
                while items[-1].waiting and self._waiting_bytes >= self._waiting_bytes_max:
                    self._taken.clear()
                    await self._taken.wait()
                window = await anext(hearing.windows, None)
            for voice in voices.values():
                await voice.settle()
        finally:
            for item in self._queue.remove_job(job):
                self._leave_queue(item)
            for item in items:
                item.leave()
        return recognition(hearing, voices)

    def status(self) -> dict[str, Any]:
        """State of each slot, windows that wait."""
        slots = [slot.status() for slot in self._slots]
        return {"queued_windows": len(self._queue), "window_seconds_expected": self._cost.seconds, "slots": slots}

    def children(self) -> dict[str, Child]:
        """Return the slots' processes by name."""
        return {f"slot-{slot.number}": slot.child for slot in self._slots}

    def stalled(self, seconds: float) -> bool:
        """Whether the task of an idle slot has not been seen for `seconds`; a busy one has its deadline."""
        now = time.monotonic()
        return any(slot.state == "idle" and now - slot.seen > seconds for slot in self._slots)

    async def _first_window(self, hearing: Hearing) -> Window | None:
        self._expected += 1
        try:
            return await anext(hearing.windows, None)
        finally:
            self._expected -= 1
            self._arrived.set()  # who lingers for company may look again

    def _item(self, job: int, request: WindowRequest, hearing: Hearing, *, follows: bool, final: bool) -> Item:
        packed = request.mode == "packed"
        weight = packing.weight(request.seconds, self._settings.pack_gap_seconds) if packed else 1.0
        return Item(job, request, hearing, weight, follows, final, time.monotonic(), get_contextvars())

    def _enqueue(self, item: Item, *, back: bool = False) -> None:
        """Put a window into the queue, or `back` into it; nothing when its job has left."""
        if item.done.done():
            return
        put = self._queue.put_back if back else self._queue.put
        put(item.job, item, key=item.key, weight=item.weight)
        item.waiting = True
        self._count_waiting(item, +1)
        self._arrived.set()
        if not item.follows and not any(slot.state in RESTING for slot in self._slots):
            self._ask_to_give_way(item.hearing.priority)

    def _ask_to_give_way(self, priority: int) -> None:
        """Let a batch of long recordings end early: a job that had nothing yet waits, and no slot is free."""
        slots = [slot for slot in self._slots if slot.gives_way_to is not None and priority <= slot.gives_way_to]
        if not slots or self._cost.seconds is None:
            return
        slot = max(slots, key=lambda slot: slot.began)  # the one that has most to leave out
        if self._cost.left(slot.weight, time.monotonic() - slot.began) * self._cost.seconds >= WORTH_CUTTING_SECONDS:
            slot.give_way()

    def _leave_queue(self, item: Item) -> None:
        item.waiting = False
        self._count_waiting(item, -1)
        self._taken.set()

    def _count_waiting(self, item: Item, sign: int) -> None:
        self._waiting_bytes += sign * item.pcm_bytes
        metrics.QUEUE_WINDOWS.set(len(self._queue))
        metrics.QUEUE_BYTES.set(self._waiting_bytes)
        metrics.BACKLOG_AUDIO_SECONDS.inc(sign * item.seconds)

    async def _serve(self, slot: Slot) -> None:
        while True:
            slot.rest()
            batch = await self._next(slot)
            if batch or slot.state != "unloaded":
                await slot.make_ready()
            if batch:
                slot.become("busy")
                await self._hear(slot, batch)
            await self._look_after(slot)

    async def _look_after(self, slot: Slot) -> None:
        """Give a process that served long enough or grew a successor; let the model of an idle one go."""
        settings = self._settings
        if 0 < settings.max_windows <= slot.windows:
            await slot.replace("windows")
        if time.monotonic() - slot.looked_after < SUPERVISE_SECONDS:  # looking takes a while: not after every batch
            return
        rss = slot.look_after()
        if 0 < settings.max_rss_bytes < rss and slot.windows:
            await slot.replace("memory")
        elif 0 < settings.unload_seconds <= slot.idle_seconds and slot.state == "idle":
            await slot.unload()

    async def _next(self, slot: Slot) -> list[Item]:
        """Return the next batch; none after SUPERVISE_SECONDS without one."""
        try:
            async with asyncio.timeout(SUPERVISE_SECONDS):
                while not self._queue:
                    slot.waited()
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return []
        limit = self._cost.limit(self._batch_windows, self._settings.batch_seconds_max)
        if slot.gave_way:  # to a message, whose text must not come with those of seven windows of a recording
            slot.gave_way, limit = False, 1.0
        if self._settings.window_mode == "packed":
            await self._linger(slot, limit)
        now = time.monotonic()
        busy = (other for other in self._slots if other.state == "busy")
        under_way = sum(self._cost.left(other.weight, now - other.began) for other in busy)
        batch = self._queue.take_batch(share_of_slot(self._queue.weight, len(self._slots), under_way, limit))
        for item in batch:
            self._leave_queue(item)
            metrics.QUEUE_WAIT.observe(now - item.queued)
        return batch

    async def _linger(self, slot: Slot, limit: float) -> None:
        """Wait a little for messages that are being decoded now, if there is room for them in a shared window."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.pack_linger_seconds):
                while self._expected and 0 < self._queue.weight < limit:
                    slot.waited()
                    self._arrived.clear()
                    await self._arrived.wait()

    async def _hear(self, slot: Slot, batch: list[Item]) -> None:
        batch = [item for item in batch if not item.done.done()]  # jobs may leave while a process is replaced
        if not batch:
            return
        # A batch takes little longer than a window that takes very long: where one does, batches are of one.
        longest = max(item.seconds for item in batch)
        deadline = self._settings.window_seconds_base + self._settings.window_seconds_factor * longest
        for item in batch:
            item.hearing.on_progress()
        if len(batch) > 1 and any(item.follows for item in batch):  # who comes first is encoded first, and stays
            slot.gives_way_to = min(item.hearing.priority for item in batch)
        slot.batch = [(item.said.get("job"), item.window.index) for item in batch]
        try:
            traced = next((item.said["trace_id"] for item in batch if "trace_id" in item.said), None)
            result = await slot.hear([item.request for item in batch], weight_of(batch), deadline, traced)
        except ChildDied as death:
            for item in batch:
                self._retry(item, death, alone=len(batch) == 1)
            await slot.replace(death.reason, said_by(batch))
        except Exception as error:  # noqa: BLE001 (whatever the model raises fails one job alone)
            self._isolate(slot, batch, error)
        else:
            self._deliver(slot, batch, result)
        finally:
            slot.gives_way_to = None

    def _deliver(self, slot: Slot, batch: list[Item], result: BatchResult) -> None:
        heard_of = [(item, heard) for item, heard in zip(batch, result.results, strict=True) if heard is not None]
        if heard_of:
            self._cost.observe(weight_of([item for item, _ in heard_of]), result.end - result.start)
        for item, heard in zip(batch, result.results, strict=True):
            if heard is None:
                if not item.request.pcm.exists():
                    item.fail(JobError(ErrorClass.INFERENCE_CRASH, "its PCM is gone from speech.pcm_dir"))
                self._enqueue(item, back=True)
        for item, heard in heard_of:
            for flag in heard.flags:
                metrics.WINDOW_FLAGS.labels(flag).inc()
            item.hear(heard, slot.number, result, len(heard_of))

    def _isolate(self, slot: Slot, batch: list[Item], error: Exception) -> None:
        """Fail the job of a window that was heard alone; windows of a batch are heard again, each alone."""
        if not isinstance(error, JobError):
            log.error("inference failed", slot=slot.number, exc_info=error, **said_by(batch))
            error = JobError(ErrorClass.INFERENCE_CRASH, f"the model raised {type(error).__name__}: {error}")
        if len(batch) == 1:
            batch[0].fail(error)
        for item in batch:
            item.crashes += 1
            self._enqueue(item, back=True)

    def _retry(self, item: Item, death: ChildDied, *, alone: bool) -> None:
        """Let a window be heard once more, elsewhere and alone: it may have been the one that killed the process."""
        if death.reason != "stopped":  # which no window does
            item.crashes += 1
            if alone:
                item.blame()
        if item.crashes > CRASHES_FORGIVEN:
            reason = f"the process {death.reason} {item.crashes} times on window {item.window.index}"
            item.fail(JobError(ErrorClass.INFERENCE_CRASH, reason))
        self._enqueue(item, back=True)
