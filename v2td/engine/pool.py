"""The slots of this machine: brought up together, as many as memory holds, and gone together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from v2td import metrics
from v2td.child import Child
from v2td.config import EngineSettings, QualitySettings
from v2td.engine import worker
from v2td.engine.batch import ModelRequest
from v2td.engine.layout import Refit
from v2td.engine.slot import STATES, Slot
from v2td.engine.topology import Plan, SlotPlan
from v2td.logs import get_logger

log = get_logger(__name__)


class SlotPool:
    """All slots of a plan; an async context manager that yields them when their models are loaded.

    `refit` plans anew from the size of the first model, where memory is tight. ServiceError (in a group) when one
    does not load.
    """

    def __init__(
        self, settings: EngineSettings, quality: QualitySettings, plan: Plan, model: Path, refit: Refit | None
    ) -> None:
        self._settings = settings
        self._quality = quality
        self._plan = plan
        self._model = model
        self._refit = refit
        self._slots = self._make(plan)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Sequence[Slot]:
        async with AsyncExitStack() as stack:
            if self._refit is not None:
                await self._start_first(self._refit)
            for slot in self._slots:
                stack.push_async_callback(slot.child.close)
            async with asyncio.TaskGroup() as group:
                for slot in self._slots:
                    if slot.state == "starting":
                        group.create_task(slot.start())
            self._stack = stack.pop_all()
        return self._slots

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start_first(self, refit: Refit) -> None:
        """Load one model and measure it, since memory may not hold as many copies as was estimated."""
        first = self._slots[0]
        try:
            await first.start()
            fitting = refit(first.watch())
        except BaseException:
            await first.child.close()
            raise
        if fitting is not self._plan:
            log.warning("fewer slots", reasons=fitting.reasons)
            await first.child.close()
            self._slots = self._make(fitting)

    def _make(self, plan: Plan) -> list[Slot]:
        return [self._make_slot(number, place) for number, place in enumerate(plan.slots)]

    def _make_slot(self, number: int, place: SlotPlan) -> Slot:
        settings = self._settings
        request = ModelRequest(
            path=self._model,
            device=settings.device,
            compute_type=settings.compute_type,
            place=place,
            pack_gap_seconds=settings.pack_gap_seconds,
            quality=self._quality,
        )
        child = Child(
            f"slot {number}",
            worker.setup,
            (request,),
            cpus=place.cpus,
            nice=place.nice,
            load_seconds=settings.load_seconds,
        )
        return Slot(number, child, self._count_slots)

    def _count_slots(self) -> None:
        for state in STATES:
            metrics.SLOTS.labels(state).set(sum(slot.state == state for slot in self._slots))
