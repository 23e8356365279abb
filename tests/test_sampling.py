"""What a child does, seen from outside: while it works, while it waits, when it is gone, and when it lies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from v2td.child import Child
from v2td.sampling import MAX_SAMPLES, Sampler, SamplingError, _parsed


def nothing() -> None:
    pass


def wait_in_c() -> None:
    time.sleep(60)


def compute() -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        sum(range(1000))


@pytest.mark.parametrize("work", [wait_in_c, compute])
async def test_a_busy_child_is_seen_at_work_and_goes_on(work: Callable[[], None]) -> None:
    async with Child("test", nothing) as child:
        call = asyncio.create_task(child.call(work, deadline_seconds=60))
        async with asyncio.timeout(30):
            while work.__name__ not in str((await child.sample(0)).stacks[0]):
                await asyncio.sleep(0.01)
        samples = await child.sample(0.3, 0.01)
        assert samples.stacks
        assert samples.seconds >= 0.3
        assert all(stack[-1].function == work.__name__ for stack in samples.stacks)
        assert not call.done()
        call.cancel()


async def test_calls_and_samples_do_not_meet() -> None:
    async with Child("test", nothing) as child:
        for _ in range(20):
            pid, samples = await asyncio.gather(child.call(os.getpid, deadline_seconds=30), child.sample(0.01))
            assert pid == child.pid
            assert samples.stacks


async def test_who_is_gone_gives_no_samples_and_the_next_one_does() -> None:
    async with Child("test", nothing) as child:
        assert child.pid is not None
        looking = asyncio.create_task(child.sample(60))
        await asyncio.sleep(0.1)
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(SamplingError, match="ended"):
            await looking
        with pytest.raises(SamplingError):
            await child.sample(0)
        await child.restart()
        assert (await child.sample(0)).stacks
        child.kill()
        with pytest.raises(SamplingError, match="no process"):
            await child.sample(0)


async def test_an_answer_that_was_given_up_is_not_the_next_ones() -> None:
    async with Child("test", nothing) as child:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await child.sample(1.5)
        assert len((await child.sample(0)).stacks) == 1


async def test_no_descriptor_stays_open() -> None:
    async with Child("test", nothing) as child:
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(3):
            await child.sample(0)
            await child.restart()
        await asyncio.sleep(0)
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


def test_an_answer_holds_nothing_that_a_page_could_take_for_more_than_words() -> None:
    lie = {
        "number": 1,
        "interval": 0.01,
        "seconds": 1,
        "seen": [0],
        "places": [["<script>\x1b[2J\x00", "a" * 9999, 1, 1]],
        "stacks": [[0]],
    }
    samples = _parsed(json.dumps(lie).encode(), 1)
    assert samples is not None
    ((place,),) = samples.stacks
    assert place.function == "(script)??2J?"
    assert len(place.file) == 300


@pytest.mark.parametrize(
    "lie",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"number": 1}',
        b'{"number": 1, "interval": "x", "seconds": 1, "places": [], "stacks": [], "seen": []}',
        b'{"number": 1, "interval": 1, "seconds": 1, "places": [], "stacks": [], "seen": [5]}',
        b'{"number": 1, "interval": 1, "seconds": 1, "places": [[1, 2, 3, 4]], "stacks": [[0]], "seen": [0]}',
    ],
)
def test_what_makes_no_sense_is_an_error_of_one_kind(lie: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (whatever it says)
        _parsed(lie, 1)


def test_who_answers_too_much_is_cut_off() -> None:
    lie = {"number": 1, "interval": 1, "seconds": 1, "places": [], "stacks": [[]], "seen": [0] * (MAX_SAMPLES + 10)}
    samples = _parsed(json.dumps(lie).encode(), 1)
    assert samples is not None
    assert len(samples.stacks) == MAX_SAMPLES
    assert _parsed(json.dumps(lie | {"number": 2}).encode(), 1) is None


async def test_a_line_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("v2td.sampling.MAX_ANSWER_BYTES", 1000)
    sampler = Sampler()
    try:
        os.write(sampler.ears.answers.fileno(), b"x" * 5000)
        with pytest.raises(SamplingError, match="no sense"):
            await sampler.sample(0, 0.01)
    finally:
        sampler.close()
