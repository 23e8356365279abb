from hypothesis import given
from hypothesis import strategies as st

from v2td.admin import rate
from v2td.admin.rate import BURST_SECONDS, RateLimit


def test_ten_seconds_worth_at_once_and_then_one_at_a_time() -> None:
    limit = RateLimit(2)
    assert [limit.wait("a", 5.0) for _ in range(20)] == [0.0] * 20
    assert limit.wait("a", 5.0) == 0.5
    assert limit.wait("a", 5.25) == 0.25
    assert limit.wait("a", 5.5) == 0.0
    assert limit.wait("a", 5.5) == 0.5


def test_one_client_takes_nothing_from_another() -> None:
    limit = RateLimit(1)
    while not limit.wait("loud", 0.0):
        pass
    assert limit.wait("quiet", 0.0) == 0.0


@given(
    per_second=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 5, allow_nan=False), min_size=1, max_size=200),
)
def test_never_more_than_the_burst_and_what_time_has_added(per_second: int, pauses: list[float]) -> None:
    limit, now, allowed = RateLimit(per_second), 0.0, 0
    for pause in pauses:
        now += pause
        wait = limit.wait("a", now)
        allowed += not wait
        assert allowed <= per_second * (BURST_SECONDS + now) + 1e-6
        if wait:  # who waits as long as it is told is let in
            now += wait + 1e-6
            assert limit.wait("a", now) == 0.0
            allowed += 1


def test_ten_thousand_addresses_take_no_more_memory() -> None:
    limit = RateLimit(1)
    for number in range(rate.MAX_CLIENTS + 5000):
        limit.wait(str(number), 0.0)
    assert len(limit._buckets) == rate.MAX_CLIENTS
