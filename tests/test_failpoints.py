"""Failpoints: nothing unless armed; each action; each visit; and every place that is named is somewhere in the code."""

from __future__ import annotations

import asyncio
import errno
import re
from pathlib import Path

import pytest

import v2td
from v2td import failpoints


@pytest.fixture(autouse=True)
def disarmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(failpoints.VARIABLE, raising=False)
    failpoints.arm()


def armed(monkeypatch: pytest.MonkeyPatch, words: str) -> list[str]:
    monkeypatch.setenv(failpoints.VARIABLE, words)
    try:
        return failpoints.arm()
    finally:
        monkeypatch.undo()


async def test_nothing_happens_where_nothing_is_armed() -> None:
    await failpoints.reach("write.begin")
    failpoints.reach_blocking("slot.batch")


async def test_a_visit_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert armed(monkeypatch, "write.begin=raise@2, write.copied=full") == ["write.begin", "write.copied"]
    monkeypatch.setenv(failpoints.LOG_VARIABLE, str(tmp_path / "log"))
    await failpoints.reach("write.begin")
    with pytest.raises(failpoints.FailpointError):
        await failpoints.reach("write.begin")
    await failpoints.reach("write.begin")
    with pytest.raises(OSError, match=r"write\.copied") as caught:
        await failpoints.reach("write.copied")
    assert caught.value.errno == errno.ENOSPC
    said = [line.split()[:2] for line in (tmp_path / "log").read_text().splitlines()]
    assert said == [["write.begin", "raise"], ["write.copied", "full"]]


async def test_a_star_is_every_visit(monkeypatch: pytest.MonkeyPatch) -> None:
    armed(monkeypatch, "slot.batch=oom@*")
    for _ in range(3):
        with pytest.raises(MemoryError):
            failpoints.reach_blocking("slot.batch")


async def test_hanging_leaves_the_loop_running(monkeypatch: pytest.MonkeyPatch) -> None:
    armed(monkeypatch, "commit.begin=hang, commit.done=sleep0.01")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(failpoints.reach("commit.begin"), 0.05)
    await failpoints.reach("commit.done")


@pytest.mark.parametrize("word", ["write.begin", "write.begin=explode", "no.such=kill", "write.begin=kill@x"])
def test_a_word_that_makes_no_sense_is_refused(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    with pytest.raises(ValueError, match="V2TD_FAILPOINTS"):
        armed(monkeypatch, word)


def test_every_place_is_in_the_code() -> None:
    code = "".join(path.read_text() for path in Path(v2td.__file__).parent.rglob("*.py"))
    reached = set(re.findall(r'failpoints\.reach(?:_blocking)?\("([a-z_.]+)"\)', code))
    assert reached == set(failpoints.PLACES)
