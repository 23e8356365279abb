"""The loop that hangs, the tasks that wait, profiles by the child's own sampler."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any, get_args

import pytest

from v2td.admin import CannotTellError, Form
from v2td.child import Child
from v2td.debugging import Debugging
from v2td.debugging.loop import LoopWatch
from v2td.debugging.profiles import _counted, _place, rendered, session_of, spied
from v2td.debugging.tasks import Tasks
from v2td.sampling import Samples


def nothing() -> None:
    pass


def hog(seconds: float) -> None:
    """What nobody should do on a loop."""
    time.sleep(seconds)


async def test_what_ran_while_the_loop_was_late_is_named() -> None:
    watch = LoopWatch()
    running = asyncio.create_task(watch.run())
    async with asyncio.timeout(60):
        while not any("hog" in str(each) for each in watch.told()["stalls"]):  # on a busy machine nobody may look
            await asyncio.sleep(0.1)
            hog(0.8)
            await asyncio.sleep(0.1)
    told = watch.told()
    assert told["times_late"] >= len(told["stalls"]) >= 1
    guilty = next(stall for stall in told["stalls"] if "hog" in str(stall))
    assert guilty["seconds"] > 0.5
    assert any(each["stack"][-1].endswith("in hog") for each in guilty["seen"])
    running.cancel()


async def test_a_task_is_shown_with_what_it_awaits_at_last() -> None:
    async def inner() -> None:
        await asyncio.Event().wait()

    async def outer(secret: str) -> None:
        await inner()

    tasks = Tasks()
    waiting = asyncio.create_task(outer("canary"), name="the one that waits")
    await asyncio.sleep(0)
    told = tasks.told()
    (found,) = (each for each in told["tasks"] if each["name"] == "the one that waits")
    assert found["coroutine"].endswith("outer")
    assert [each.rpartition(".")[2] for each in found["stack"]] == ["outer", "inner", "wait"]
    assert found["age_seconds"] >= 0
    assert "canary" not in json.dumps(told)
    waiting.cancel()


@pytest.mark.parametrize("form", ["html", "speedscope", "text"])
async def test_without_py_spy_a_child_is_its_own_witness(form: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_args, **_more: None)
    async with Child("slot 0", nothing) as child:
        debugging = Debugging(lambda: {"slot-0": child}, dict)
        profile, refusal = await asyncio.gather(
            debugging.profile("slot-0", 0.3, form), debugging.profile("loop", 1, form), return_exceptions=True
        )
    assert not isinstance(profile, BaseException)
    assert profile.made_by == "sampler (py-spy is not installed (the extra `debug`))"
    assert "_process_worker" in profile.content
    assert isinstance(refusal, CannotTellError)
    assert refusal.status == 409


async def test_who_is_gone_has_no_profile() -> None:
    child = Child("slot 0", nothing)
    with pytest.raises(CannotTellError, match="not there") as error:
        await Debugging(lambda: {"slot-0": child}, dict).profile("slot-0", 1, "text")
    assert error.value.status == 503


async def test_who_died_meanwhile_was_not_seen_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "py-spy"
    program.write_text('#!/bin/sh\nfor file; do :; done\necho "thread (7): MainThread;run (/x/y.py:1) 3" > "$file"\n')
    program.chmod(0o700)
    monkeypatch.setattr("shutil.which", lambda *_args, **_more: str(program))
    found = await spied(1, 3600)
    assert isinstance(found, Samples)
    assert len(found.stacks) == 3
    assert 0 < found.seconds < 3600


def test_py_spys_lines_are_taken_by_their_thread() -> None:
    lines = [
        "thread (7): MainThread;run (/x/runners.py:118);<script> (/x/a b.py:4) 3",
        "thread (8): sampler;read (/x/y.py:1) 9",
    ]
    stacks = list(_counted(lines))
    assert [[place.function for place in stack] for stack in stacks] == [["run", "(script)"]] * 3
    assert str(_place("native_thing")) == ":0 in native_thing"


def test_a_profile_without_samples_is_empty_and_no_error() -> None:
    for form in get_args(Form):
        assert rendered(session_of(Samples((), 0.01, 1.0), "nobody"), form)
