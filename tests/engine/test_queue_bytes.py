"""Decoders run ahead of the slots by so many bytes of PCM, and no further."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import pytest

from tests.engine.conftest import EN, freeze, running_engine, slots_of, text_of, until
from tests.speech.sounds import read
from v2td import metrics
from v2td.engine import Engine, Hearing, Recognition
from v2td.jobs import Options, Span, Window

pytestmark = pytest.mark.slow  # starts processes that load models

ROOM = 4  # windows
WINDOW = len(read(EN.path))


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with running_engine(queue_bytes_max=ROOM * WINDOW * 2, batch_windows=2) as opened:
        yield opened


class Job:
    """A job whose decoder counts how often it is asked for a window, and how much waited then."""

    def __init__(self, engine: Engine, pcm: Path, windows: int) -> None:
        self._windows = windows
        self.decoded = 0
        self.waiting: list[float] = []
        hearing = Hearing(pcm, self._found(), Options(language="en"), 5, monotonic(), lambda: None)
        self.task: asyncio.Task[Recognition] = asyncio.ensure_future(engine.transcribe(hearing))

    async def _found(self) -> AsyncIterator[Window]:
        for index in range(self._windows):
            self.waiting.append(waiting_windows())
            self.decoded += 1
            everything = (Span(0, WINDOW),)
            yield Window(index, everything, everything)


def waiting_windows() -> float:
    return float(metrics.QUEUE_BYTES._value.get()) / WINDOW / 2


async def settled() -> None:
    """Let everybody do all that can be done without the slots."""
    for _ in range(100):
        await asyncio.sleep(0)


@pytest.fixture
def pcm(tmp_path: Path) -> Path:
    path = tmp_path / "pcm"
    read(EN.path).tofile(path)
    return path


async def test_decoders_pause_while_enough_waits_and_go_on_when_there_is_room(engine: Engine, pcm: Path) -> None:
    (slot,) = slots_of(engine)
    frozen = freeze(slot)
    job = Job(engine, pcm, 12)
    await until(lambda: slot.state == "busy")
    await settled()
    assert job.decoded == 2 + ROOM, "a batch that is being heard, and what may wait"
    assert waiting_windows() == ROOM
    os.kill(frozen, signal.SIGCONT)
    assert text_of(await job.task) == [EN.text] * 12
    assert max(job.waiting) == ROOM - 1, "a window was asked for only when there was room"
    assert waiting_windows() == 0


async def test_every_job_may_have_one_window_so_that_the_most_urgent_is_known(engine: Engine, pcm: Path) -> None:
    (slot,) = slots_of(engine)
    frozen = freeze(slot)
    first = Job(engine, pcm, 8)
    await until(lambda: slot.state == "busy")
    others = [Job(engine, pcm, 2) for _ in range(3)]
    await settled()
    assert [job.decoded for job in others] == [1, 1, 1]
    assert waiting_windows() == ROOM + 3
    os.kill(frozen, signal.SIGCONT)
    for job, windows in ((first, 8), *((other, 2) for other in others)):
        assert text_of(await job.task) == [EN.text] * windows


async def test_a_cancelled_job_makes_room(engine: Engine, pcm: Path) -> None:
    (slot,) = slots_of(engine)
    frozen = freeze(slot)
    first = Job(engine, pcm, 20)
    await until(lambda: slot.state == "busy")
    second = Job(engine, pcm, 8)
    await settled()
    assert (first.decoded, second.decoded) == (2 + ROOM, 1)
    first.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first.task
    await settled()
    assert second.decoded == ROOM
    assert waiting_windows() == ROOM
    os.kill(frozen, signal.SIGCONT)
    assert text_of(await second.task) == [EN.text] * 8
    assert first.decoded == 2 + ROOM


async def test_by_default_two_batches_for_each_slot_may_wait(pcm: Path) -> None:
    async with running_engine(batch_windows=3) as engine:
        (slot,) = slots_of(engine)
        frozen = freeze(slot)
        long = int(engine._waiting_bytes_max / WINDOW / 2)
        assert engine._waiting_bytes_max == 2 * 3 * 30 * 16_000 * 2
        job = Job(engine, pcm, long + 10)
        await until(lambda: slot.state == "busy")
        await settled()
        assert job.decoded == 3 + long + 1
        job.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job.task
        os.kill(frozen, signal.SIGCONT)
