"""One slot, seen from the event loop: a child that holds the model, its state and its figures."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

from v2td import metrics
from v2td.child import Child
from v2td.engine import worker
from v2td.engine.batch import BatchResult, WindowRequest
from v2td.logs import get_logger

log = get_logger(__name__)

State = Literal["starting", "idle", "busy", "unloaded"]
STATES: tuple[State, ...] = ("starting", "idle", "busy", "unloaded")
At = tuple[str | None, int]  # a job's id, if it has one, and the index of its window
WATCH_SECONDS = 1.0  # looking takes a while
RESTING = "idle", "unloaded"
REVIVED = "died", "deadline", "stopped"  # reasons to restart that are no intention of ours


class Slot:
    """A child, and what is known of it. Its owner calls one method at a time; `on_state` hears of new states."""

    def __init__(self, number: int, child: Child, on_state: Callable[[], None]) -> None:
        self.number = number
        self.child = child
        self._on_state = on_state
        self.state: State = "starting"
        self.seen = time.monotonic()  # of the last sign of life of its task
        self.windows = 0  # since its process was started
        self._worked = self.seen  # until then
        self.gave_way = False  # the last batch did; the next one is for whom it did so
        self.watched = 0.0  # time.monotonic() of the last look at its process
        self.looked_after = 0.0  # the same, between two batches
        self.batch: Sequence[At] = ()  # what is under way
        self._rss_bytes, self._cpu_seconds = 0, 0.0  # by that look
        self._cpu_share: float | None = None  # of one CPU, between the last two
        self.gives_way_to: int | None = None  # jobs of this priority, or more urgent ones
        self.weight = 0.0  # of the batch under way
        self.began = 0.0  # time.monotonic() of its start
        self._ended: float | None = None  # when the last batch ended, if the slot wanted another at once

    def become(self, state: State) -> None:
        """Note a new state."""
        self.state = state
        if state != "busy":
            self.batch = ()
        self.seen = time.monotonic()
        self._on_state()

    def rest(self) -> None:
        """Note that there is no work; an unloaded slot stays so."""
        if self.state != "unloaded":
            self.become("idle")

    @property
    def idle_seconds(self) -> float:
        """Seconds since it last had work."""
        return time.monotonic() - self._worked

    async def start(self) -> None:
        """Bring up the process and load the model; ServiceError when that fails."""
        self.become("starting")
        await self.child.restart()
        self.windows = 0
        self._worked = time.monotonic()
        self.become("idle")

    @property
    def window_seconds(self) -> float:
        """What a window took when the model was loaded: a silent one, so little more than its encoding."""
        return float(self.child.set_up)

    async def make_ready(self) -> None:
        """See that the process is there: load the model again, replace what has died."""
        if self.state == "unloaded":
            self.become("starting")
            await self.child.revive()
            self.windows = 0
        elif not self.child.alive:
            await self.replace("died")

    async def replace(self, reason: str, said: dict[str, Any] | None = None) -> None:
        """Replace the process by a fresh one."""
        metrics.SLOT_RESTARTS.labels(reason).inc()
        say = log.warning if reason in REVIVED else log.info
        say("slot restarted", slot=self.number, reason=reason, **(said or {}))
        self.become("starting")
        self._ended = None
        await self.child.revive()
        self.windows = 0

    async def unload(self) -> None:
        """Give the model's memory back."""
        log.info("model unloaded", slot=self.number)
        self.become("unloaded")
        await self.child.close()
        self._note_usage(0, 0.0)

    async def hear(
        self, batch: Sequence[WindowRequest], weight: float, deadline_seconds: float, trace_id: str | None = None
    ) -> BatchResult:
        """Transcribe a batch, of which a window belongs to this trace; ChildDied, or what the model raised."""
        self.weight, self.began = weight, time.monotonic()
        result = await self.child.call(worker.transcribe, batch, deadline_seconds=deadline_seconds)
        if self._ended is not None:
            metrics.SLOT_GAP.observe(max(0.0, result.start - self._ended))
        self._ended = self._worked = result.end
        heard = sum(each is not None for each in result.results)
        self.windows += heard
        if heard:
            metrics.BATCH_WINDOWS.observe(heard)
            exemplar = None if trace_id is None else {"trace_id": trace_id}
            metrics.WINDOW_SECONDS.labels(self.number).observe((result.end - result.start) / heard, exemplar)
        return result

    def give_way(self) -> None:
        """Ask the batch under way to leave out what it has not encoded yet."""
        self.gives_way_to, self.gave_way = None, True
        if self.child.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.child.pid, signal.SIGUSR1)

    def status(self) -> dict[str, Any]:
        """What /status shows; looks at the process, whose batch may be a long one, if nobody did of late."""
        if time.monotonic() - self.watched >= WATCH_SECONDS:
            self.watch()
        return {
            "slot": self.number,
            "state": self.state,
            "pid": self.child.pid,
            "restarts": self.child.generation - 1,
            "windows": self.windows,
            "batch": [{"job": job, "window": window} for job, window in self.batch],
            "rss_bytes": self._rss_bytes,
            "cpu_seconds": round(self._cpu_seconds, 2),
            "cpu_share": None if self._cpu_share is None else round(self._cpu_share, 3),
        }

    def waited(self) -> None:
        """Note that there was nothing to do: the time until the next batch is no gap of ours."""
        self._ended = None

    def look_after(self) -> int:
        """As `watch`, between two batches."""
        self.looked_after = time.monotonic()
        return self.watch()

    def watch(self) -> int:
        """Publish what the process takes; returns its resident bytes."""
        rss_bytes, cpu_seconds = self.child.usage()
        self._note_usage(rss_bytes, cpu_seconds)
        return rss_bytes

    def _note_usage(self, rss_bytes: int, cpu_seconds: float) -> None:
        now, spent = time.monotonic(), cpu_seconds - self._cpu_seconds
        same_process = self.watched and spent >= 0
        self._cpu_share = spent / (now - self.watched) if same_process and now > self.watched else None
        self.watched, self._rss_bytes, self._cpu_seconds = now, rss_bytes, cpu_seconds
        metrics.SLOT_RSS.labels(self.number).set(rss_bytes)
        metrics.SLOT_CPU.labels(self.number).set(cpu_seconds)
