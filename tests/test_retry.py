from random import Random

from hypothesis import given
from hypothesis import strategies as st

from v2td.retry import Backoff

BACKOFFS = st.builds(Backoff, initial=st.floats(0.001, 100), factor=st.floats(1, 1000), maximum=st.floats(0.001, 1000))
SEEDS = st.integers(0, 2**32)


@given(BACKOFFS, st.integers(1, 10_000), SEEDS)
def test_a_pause_lies_between_nothing_and_its_limit(backoff: Backoff, failures: int, seed: int) -> None:
    limit = min(backoff.maximum, backoff.initial * backoff.factor ** min(failures - 1, 64))
    assert 0 <= backoff.pause(failures, Random(seed)) <= limit


@given(BACKOFFS, st.integers(1, 100), SEEDS, st.floats(0, 1e9))
def test_what_is_asked_for_is_honoured_up_to_the_maximum(
    backoff: Backoff, failures: int, seed: int, asked: float
) -> None:
    pause = backoff.pause(failures, Random(seed), asked)
    assert min(asked, backoff.maximum) <= pause <= backoff.maximum


def test_full_jitter_uses_the_whole_range_and_the_range_doubles() -> None:
    random = Random(7)
    for failures, limit in ((1, 1.0), (2, 2.0), (3, 4.0), (7, 60.0), (1000, 60.0)):
        drawn = [Backoff().pause(failures, random) for _ in range(500)]
        assert min(drawn) < 0.1 * limit
        assert 0.9 * limit < max(drawn) <= limit
