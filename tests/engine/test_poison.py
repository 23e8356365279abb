"""Batches with a window that kills or breaks what hears it: all others get their text."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import pytest
from prometheus_client import REGISTRY

from tests.engine.conftest import EN, freeze, running_engine, slots_of, text_of, until
from tests.speech.sounds import read
from v2td.engine import Engine, Hearing, Recognition
from v2td.errors import ErrorClass, JobError
from v2td.jobs import Options, Span, Window

pytestmark = pytest.mark.slow  # starts processes that load models


@pytest.fixture
def pcm(tmp_path: Path) -> Path:
    path = tmp_path / "pcm"
    read(EN.path).tofile(path)
    return path


def hear(engine: Engine, pcm: Path, windows: int = 1) -> asyncio.Task[Recognition]:
    async def found() -> AsyncIterator[Window]:
        everything = (Span(0, len(read(EN.path))),)
        for index in range(windows):
            yield Window(index, everything, everything)

    hearing = Hearing(pcm, found(), Options(language="en"), 5, monotonic(), lambda: None)
    return asyncio.ensure_future(engine.transcribe(hearing))


def restarts(reason: str) -> float:
    return REGISTRY.get_sample_value("v2td_slot_restarts_total", {"reason": reason}) or 0.0


async def test_a_batch_whose_process_is_killed_is_heard_again_one_by_one(pcm: Path) -> None:
    died = restarts("died")
    async with running_engine() as engine:
        (slot,) = slots_of(engine)
        frozen = freeze(slot)
        jobs = [hear(engine, pcm), hear(engine, pcm, 2), hear(engine, pcm)]
        await until(lambda: slot.state == "busy")
        assert engine.status()["queued_windows"] == 0, "all are in the batch"
        os.kill(frozen, signal.SIGKILL)
        heard = await asyncio.wait_for(asyncio.gather(*jobs), 30)
        later = hear(engine, pcm, 3)
        assert [timing.batch for timing in (await later).timings] == [3] * 3, "those that are new go together"
    assert [text_of(each) for each in heard] == [[EN.text], [EN.text] * 2, [EN.text]]
    assert [timing.batch for each in heard for timing in each.timings] == [1] * 4
    assert restarts("died") == died + 1


async def test_a_window_that_hangs_its_process_fails_alone(pcm: Path, tmp_path: Path) -> None:
    """A pipe that nobody writes into is opened for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    deadline = restarts("deadline")
    async with running_engine(window_seconds_base=3, window_seconds_factor=0.001) as engine:
        (slot,) = slots_of(engine)
        poison, *others = hear(engine, pipe), hear(engine, pcm, 2), hear(engine, pcm)
        await until(lambda: slot.state == "busy")
        assert engine.status()["queued_windows"] == 0, "all are in the batch"
        with pytest.raises(JobError, match="deadline 2 times on window 0") as caught:
            await asyncio.wait_for(poison, 30)
        assert caught.value.error_class is ErrorClass.INFERENCE_CRASH
        heard = await asyncio.wait_for(asyncio.gather(*others), 30)
    assert [text_of(each) for each in heard] == [[EN.text] * 2, [EN.text]]
    assert restarts("deadline") == deadline + 2


async def test_a_window_that_cannot_be_heard_fails_alone_and_the_process_lives(pcm: Path, tmp_path: Path) -> None:
    async with running_engine() as engine:
        (slot,) = slots_of(engine)
        others = [hear(engine, pcm), hear(engine, pcm, 2)]
        broken = hear(engine, tmp_path / "gone")
        with pytest.raises(JobError, match="its PCM is gone"):
            await broken
        heard = await asyncio.gather(*others)
        assert slot.child.generation == 1
    assert [text_of(each) for each in heard] == [[EN.text], [EN.text] * 2]
    assert [timing.batch for each in heard for timing in each.timings] == [3] * 3, "it costs the others nothing"
