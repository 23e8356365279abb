"""A server in trouble is left alone, and one caller at a time finds out how things are."""

import asyncio
import time

import pytest

from v2td.results import rest
from v2td.results.rest import Rest


@pytest.fixture
def resting(monkeypatch: pytest.MonkeyPatch) -> Rest:
    """One that has had its first failure."""
    monkeypatch.setattr(rest, "FIRST_SECONDS", 0.05)
    one = Rest("a server")
    assert one.may_ask()
    one.failed(OSError("no"))
    return one


async def test_behind_the_rest_one_asks(resting: Rest) -> None:
    assert not resting.may_ask()
    await asyncio.sleep(0.06)
    assert [resting.may_ask() for _ in range(3)] == [True, False, False]
    resting.answered()
    assert [resting.may_ask() for _ in range(3)] == [True, True, True]


async def test_each_failure_in_a_row_makes_a_longer_rest(resting: Rest) -> None:
    await asyncio.sleep(0.06)
    assert resting.may_ask()
    resting.failed(OSError("no"))
    await asyncio.sleep(0.06)
    assert not resting.may_ask()
    await asyncio.sleep(0.06)
    assert resting.may_ask()


async def test_those_who_asked_together_count_once(resting: Rest) -> None:
    for _ in range(50):
        resting.failed(OSError("no"))
    await asyncio.sleep(0.06)
    assert resting.may_ask()


async def test_one_that_asks_and_is_cancelled_holds_nobody_up(resting: Rest) -> None:
    await asyncio.sleep(0.06)
    assert resting.may_ask()  # and is never heard of again
    await asyncio.sleep(0.06)
    assert resting.may_ask()


def test_a_rest_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    one = Rest("a server")
    assert one.may_ask()
    for seconds in (1, 2, 4, 8, 16, 30, 30, 30):
        one.failed(OSError("no"))
        now += seconds - 0.1
        assert not one.may_ask()
        now += 0.2
        assert one.may_ask()
