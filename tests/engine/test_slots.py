"""Slots that rest, are recycled and give way, and what they tell of it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
from prometheus_client import REGISTRY

from tests.engine.conftest import EN, VI, Hear, freeze, running_engine, slots_of, text_of, until
from v2td.engine import Engine, Recognition
from v2td.engine import engine as engine_module
from v2td.jobs import Options

pytestmark = pytest.mark.slow  # starts processes that load models

VIETNAMESE = Options(language="vi")


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"v2td_{name}", labels) or 0.0


@pytest.fixture
async def lazy() -> AsyncIterator[Engine]:
    """An engine that gives its model's memory back whenever it looks."""
    async with running_engine(unload_seconds=0.001) as opened:
        yield opened


async def test_a_slot_without_work_gives_its_memory_back_and_loads_on_demand(lazy: Engine, hear: Hear) -> None:
    (slot,) = slots_of(lazy)
    for generation in (1, 2):
        await until(lambda: slot.state == "unloaded" and sample("slot_rss_bytes", slot="0") == 0)
        assert slot.child.pid is None
        assert not models_loaded()
        assert sample("slots", state="unloaded") == 1
        assert lazy.status()["slots"][0]["state"] == "unloaded"
        assert not lazy.stalled(0)
        assert slot.child.generation == generation
        assert text_of(await hear(lazy, EN, windows=3)) == [EN.text] * 3
        assert slot.child.generation == generation + 1


async def test_a_slot_with_work_is_not_unloaded(lazy: Engine, hear: Hear) -> None:
    (slot,) = slots_of(lazy)
    states: set[str] = set()
    await hear(lazy, EN, windows=5, on_progress=lambda: states.add(slot.state))
    assert states == {"busy"}
    assert slot.child.generation <= 2, "the model was loaded once for all of them"


async def test_a_slot_is_recycled_after_so_many_windows_while_the_other_goes_on(hear: Hear) -> None:
    before = sample("slot_restarts_total", reason="windows")
    async with running_engine(2, max_windows=2, batch_windows=1) as engine:
        slots = slots_of(engine)
        while all(slot.state != "starting" for slot in slots):
            known = children()
            assert text_of(await hear(engine, EN)) == [EN.text]
            await until(lambda: all(slot.state != "busy" for slot in slots))
        recycled, other = sorted(slots, key=lambda slot: slot.state != "starting")
        assert other.windows < 2
        await until(lambda: bool(children() - known))
        for pid in (new := children() - known):
            os.kill(pid, signal.SIGSTOP)  # so that its start takes as long as the test wants
        assert text_of(await hear(engine, VI, options=VIETNAMESE)) == [VI.text]
        assert recycled.state == "starting"
        for pid in new:
            os.kill(pid, signal.SIGCONT)
        await until(lambda: recycled.state == "idle")
        assert (recycled.windows, recycled.child.generation) == (0, 2)
        assert text_of(await hear(engine, EN, windows=4)) == [EN.text] * 4
    assert sample("slot_restarts_total", reason="windows") > before


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def models_loaded() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.memory_info().rss > 100_000_000]


async def test_windows_that_wait_go_together_and_gaps_are_told(hear: Hear) -> None:
    async with running_engine(batch_windows=4) as engine:
        (slot,) = slots_of(engine)
        batches, gaps = Change("batch_windows"), Change("slot_gap_seconds")
        recognition = await hear(engine, EN, windows=9)
        assert text_of(recognition) == [EN.text] * 9
        assert [timing.batch for timing in recognition.timings] == [4, 4, 4, 4, 4, 4, 4, 4, 1]
        assert (batches.count, batches.sum) == (3, 9)
        assert gaps.count == 2, "between three batches"
        assert 0 <= gaps.sum < 1
        for _ in range(2):
            await hear(engine, EN)
            await until(lambda: slot.state == "idle")
        assert (batches.count, batches.sum) == (5, 11)
        assert gaps.count == 2, "nothing waited, so there was no gap"


class Change:
    """What a histogram has counted since."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._before = sample(f"{name}_count"), sample(f"{name}_sum")

    @property
    def count(self) -> float:
        return sample(f"{self._name}_count") - self._before[0]

    @property
    def sum(self) -> float:
        return sample(f"{self._name}_sum") - self._before[1]


async def test_urgent_windows_make_up_their_own_batch(hear: Hear) -> None:
    async with running_engine() as engine, asyncio.TaskGroup() as group:
        (slot,) = slots_of(engine)
        frozen = freeze(slot)
        first = group.create_task(result(hear(engine, EN)))
        await until(lambda: slot.state == "busy")
        usual = group.create_task(result(hear(engine, EN, windows=3)))
        urgent = group.create_task(result(hear(engine, VI, windows=2, options=VIETNAMESE, priority=0)))
        await until(lambda: engine.status()["queued_windows"] == 5)
        os.kill(frozen, signal.SIGCONT)
    assert text_of(first.result()) == [EN.text]
    assert [timing.batch for timing in urgent.result().timings] == [2, 2]
    assert [timing.batch for timing in usual.result().timings] == [3, 3, 3]


async def result(awaitable: Any) -> Any:
    return await awaitable


class TestGivingWay:
    """A batch of a long recording ends early when a job comes that has had nothing yet."""

    async def hear_long(self, engine: Engine, hear: Hear, priority: int) -> tuple[Recognition, Recognition]:
        """Hear two batches of five windows; while the second is encoded a job of that priority comes."""
        (slot,) = slots_of(engine)
        told = 0
        second = asyncio.Event()

        def progress() -> None:
            nonlocal told
            told += 1
            if told == 15:  # five windows have started and ended, five start
                second.set()

        long = asyncio.create_task(result(hear(engine, EN, windows=10, on_progress=progress)))
        await second.wait()
        _, used = slot.child.usage()
        await until(lambda: slot.child.usage()[1] > used + 0.02)  # so the process has begun with it
        frozen = freeze(slot)
        short = asyncio.create_task(result(hear(engine, VI, options=VIETNAMESE, priority=priority)))
        await until(lambda: engine.status()["queued_windows"] == 1)
        os.kill(frozen, signal.SIGCONT)
        return await long, await short

    async def test_what_is_not_encoded_waits_for_it(self, hear: Hear, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine_module, "WORTH_CUTTING_SECONDS", 0.0)  # the bundled model is too quick for the usual
        async with running_engine(batch_windows=5) as engine:
            long, short = await self.hear_long(engine, hear, priority=5)
            assert slots_of(engine)[0].windows == 11, "each once"
        assert text_of(long) == [EN.text] * 10
        assert text_of(short) == [VI.text]
        batches = [timing.batch for timing in long.timings]
        cut = batches[5]
        assert 1 <= cut < 5
        assert batches[:5] == [5] * 5
        assert batches[5 : 5 + cut] == [cut] * cut
        assert long.timings[4 + cut].start < long.timings[5 + cut].start

    async def test_it_does_not_for_a_less_urgent_one(self, hear: Hear) -> None:
        async with running_engine(batch_windows=5) as engine:
            long, short = await self.hear_long(engine, hear, priority=9)
        assert text_of(short) == [VI.text]
        assert [timing.batch for timing in long.timings] == [5] * 10
