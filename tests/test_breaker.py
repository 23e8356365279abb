"""The circuit breaker against a clock that the test moves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from v2td.breaker import LONGEST_PAUSE_SECONDS, PROBES, CircuitBreaker


def breaker(**settings: float) -> CircuitBreaker:
    return CircuitBreaker(**{"ratio": 0.2, "seconds": 300, "jobs": 50, "pause_seconds": 60, **settings})  # type: ignore[arg-type]  # `jobs` is whole


def feed(circuit: CircuitBreaker, now: float, failures: int, successes: int) -> bool:
    """Whether it opened at any of the outcomes, failures last."""
    outcomes = [False] * successes + [True] * failures
    return sum(circuit.observe(failed=failed, began=now, now=now) for failed in outcomes) > 0


def test_a_few_failures_say_nothing() -> None:
    circuit = breaker()
    assert not feed(circuit, 1.0, failures=49, successes=0)
    assert circuit.open_until(1.0) is None


def test_more_than_the_ratio_opens_it_for_the_pause() -> None:
    circuit = breaker()
    assert not feed(circuit, 10.0, failures=20, successes=80)  # exactly 20 %
    assert feed(circuit, 11.0, failures=1, successes=0)
    assert circuit.open_until(70.9) == 71.0
    assert circuit.open_until(71.0) is None


def test_old_outcomes_are_forgotten() -> None:
    circuit = breaker()
    assert not feed(circuit, 0.0, failures=49, successes=0)
    assert not feed(circuit, 301.0, failures=5, successes=60)


def test_failures_that_take_long_are_remembered_for_as_long_as_so_many_of_them_take() -> None:
    """One after the other they are never `jobs` within `seconds`, nor are the probes."""
    circuit = breaker(jobs=5, seconds=60, pause_seconds=30, probes=1)

    def hangs(at: float) -> bool:
        return circuit.observe(failed=True, began=at, now=at + 300, within=5 * 300)

    assert [hangs(300.0 * job) for job in range(5)] == [False] * 4 + [True]
    assert [circuit.admit(1530.0) for _ in range(2)] == [True, False]
    assert hangs(1530.0)
    assert circuit.open_until(1830.0) == 1890.0


def test_what_was_under_way_says_nothing() -> None:
    circuit = breaker()
    assert feed(circuit, 10.0, failures=50, successes=0)
    assert not any(circuit.observe(failed=True, began=10.0, now=80.0) for _ in range(100))


def test_a_pause_admits_none_and_then_a_few() -> None:
    circuit = breaker()
    assert circuit.admit(0.0)
    assert feed(circuit, 0.0, failures=50, successes=0)
    assert not circuit.admit(59.9)
    assert [circuit.admit(60.0) for _ in range(PROBES + 5)] == [True] * PROBES + [False] * 5
    assert not circuit.admit(119.9)
    assert circuit.admit(120.0), "the probes tell nothing: a few more"


def test_probes_that_fail_make_the_next_pause_longer() -> None:
    circuit = breaker()
    assert feed(circuit, 0.0, failures=50, successes=0)
    assert not feed(circuit, 61.0, failures=2, successes=7)  # may still be a fifth, or more
    assert feed(circuit, 61.0, failures=1, successes=0)
    assert circuit.open_until(61.0) == 61.0 + 120


def test_probes_that_succeed_close_it() -> None:
    circuit = breaker()
    assert feed(circuit, 0.0, failures=50, successes=0)
    assert feed(circuit, 61.0, failures=0, successes=8)
    assert all(circuit.admit(62.0) for _ in range(100))
    assert not feed(circuit, 200.0, failures=9, successes=30)  # closed: fifty are needed again
    assert feed(circuit, 200.0, failures=40, successes=0)
    assert circuit.open_until(200.0) == 260.0  # and the pause is the first one again


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=300))
def test_pauses_are_bounded(steps: list[tuple[float, bool]]) -> None:
    circuit, now = breaker(jobs=5), 0.0
    for passed, failed in steps:
        now += passed
        circuit.observe(failed=failed, began=now, now=now)
        end = circuit.open_until(now)
        assert end is None or now < end <= now + LONGEST_PAUSE_SECONDS


@given(st.integers(0, 200))
def test_successes_alone_never_open_it(count: int) -> None:
    assert not feed(breaker(), 5.0, failures=0, successes=count)
