"""Slots that die, hang or grow: their windows are heard elsewhere, and nobody else notices."""

import asyncio
import os
import signal
from typing import Any

import psutil
import pytest

from tests.engine.conftest import EN, VI, Hear, freeze, running_engine, slots_of, text_of, until
from v2td import metrics
from v2td.engine.slot import Slot
from v2td.errors import ErrorClass, JobError
from v2td.jobs import Options

pytestmark = pytest.mark.slow  # starts processes that load models or services

VIETNAMESE = Options(language="vi")


def restarts(reason: str) -> float:
    return float(metrics.SLOT_RESTARTS.labels(reason)._value.get())


async def kill_when_busy(slot: Slot, frozen: int) -> None:
    await until(lambda: slot.state == "busy")
    os.kill(frozen, signal.SIGKILL)


async def test_a_window_whose_process_is_killed_is_heard_elsewhere_and_the_slot_replaced(hear: Hear) -> None:
    died = restarts("died")
    async with running_engine(2) as engine:
        first, second = slots_of(engine)
        pids = [freeze(first), freeze(second)]
        job = asyncio.create_task(_result(hear(engine, EN)))
        await until(lambda: "busy" in (first.state, second.state))
        victim, other = (first, second) if first.state == "busy" else (second, first)
        os.kill(pids[slots_of(engine).index(victim)], signal.SIGKILL)
        await until(lambda: other.state == "busy")  # it came here while the other is brought up again
        os.kill(pids[slots_of(engine).index(other)], signal.SIGCONT)
        recognition = await asyncio.wait_for(job, 20)
        assert text_of(recognition) == [EN.text]
        assert recognition.timings[0].slot == other.number
        await until(lambda: victim.state == "idle")
        assert victim.child.alive
        assert victim.child.pid not in pids
        assert (victim.child.generation, other.child.generation) == (2, 1)
    assert restarts("died") == died + 1


async def _result(awaitable: Any) -> Any:
    return await awaitable


@pytest.mark.slow
async def test_a_window_that_kills_twice_fails_its_job_and_no_other(hear: Hear) -> None:
    async with running_engine(1) as engine:
        (slot,) = slots_of(engine)
        frozen = freeze(slot)
        poison = asyncio.create_task(_result(hear(engine, EN)))
        await until(lambda: slot.state == "busy")
        innocent = asyncio.create_task(_result(hear(engine, VI, windows=2, options=VIETNAMESE)))
        await asyncio.sleep(0.05)
        os.kill(frozen, signal.SIGKILL)
        await until(lambda: slot.state == "starting")
        await until(lambda: slot.state == "busy" and slot.child.pid is not None)
        frozen = freeze(slot)
        await asyncio.sleep(0.1)
        assert not poison.done()
        os.kill(frozen, signal.SIGKILL)
        with pytest.raises(JobError, match="the process died 2 times on window 0") as caught:
            await asyncio.wait_for(poison, 20)
        assert caught.value.error_class is ErrorClass.INFERENCE_CRASH
        assert text_of(await asyncio.wait_for(innocent, 20)) == [VI.text] * 2
        assert engine.status()["queued_windows"] == 0


async def test_a_window_that_takes_too_long_is_ended_with_its_process(hear: Hear) -> None:
    """The deadline is met by nothing here, so the second try fails as well."""
    deadline = restarts("deadline")
    async with running_engine(1, window_seconds_base=0.001, window_seconds_factor=0.0001) as engine:
        with pytest.raises(JobError, match="deadline 2 times") as caught:
            await asyncio.wait_for(hear(engine, EN), 20)
        assert caught.value.error_class is ErrorClass.INFERENCE_CRASH
        await until(lambda: slots_of(engine)[0].state == "idle")
    assert restarts("deadline") == deadline + 2


async def test_a_process_that_hangs_is_ended_at_the_windows_deadline(hear: Hear) -> None:
    async with running_engine(1, window_seconds_base=1.5, window_seconds_factor=0.01) as engine:
        pid = freeze(slots_of(engine)[0])
        assert text_of(await asyncio.wait_for(hear(engine, EN), 20)) == [EN.text]
        assert not psutil.pid_exists(pid)


async def test_a_process_that_died_while_idle_is_replaced_before_anybody_needs_it(hear: Hear) -> None:
    async with running_engine(1) as engine:
        (slot,) = slots_of(engine)
        await until(lambda: slot.state == "idle")
        assert slot.child.pid is not None
        os.kill(slot.child.pid, signal.SIGKILL)
        await until(lambda: slot.child.generation == 2 and slot.state == "idle")
        assert text_of(await hear(engine, EN)) == [EN.text]
        assert slot.child.generation == 2


async def test_a_process_that_has_grown_is_replaced_between_two_windows(hear: Hear) -> None:
    memory = restarts("memory")
    async with running_engine(1, max_rss_bytes=2**31) as engine:
        assert text_of(await hear(engine, EN)) == [EN.text]
        assert slots_of(engine)[0].child.generation == 1
    async with running_engine(1, max_rss_bytes=1_000_000) as engine:
        assert text_of(await hear(engine, EN, windows=2)) == [EN.text] * 2
        assert slots_of(engine)[0].child.generation > 1
    assert restarts("memory") > memory


async def test_a_crash_after_its_job_was_cancelled_leaves_nothing_in_the_queue(hear: Hear) -> None:
    async with running_engine(1) as engine:
        (slot,) = slots_of(engine)
        frozen = freeze(slot)
        job = asyncio.create_task(_result(hear(engine, EN, windows=3)))
        await until(lambda: slot.state == "busy")
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        os.kill(frozen, signal.SIGKILL)
        await until(lambda: slot.state == "idle")
        assert engine.status()["queued_windows"] == 0
        assert text_of(await hear(engine, EN)) == [EN.text]


async def test_no_process_remains() -> None:
    async with running_engine(2) as engine:
        pids = [slot.child.pid for slot in slots_of(engine)]
        assert all(pid is not None and psutil.pid_exists(pid) for pid in pids)
    assert not any(pid is not None and psutil.pid_exists(pid) for pid in pids)
