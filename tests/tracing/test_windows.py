"""Windows of timings, whoever wrote them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.tracing.windows import MAX_NUMBER, HeardWindow, windows_of

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["start", "seconds", "flags", "index"]), inner),
)


def test_what_ours_say() -> None:
    ours = {"index": 3, "slot": 1, "start": 0.5, "seconds": 2.0, "flags": ("sparse",), "batch": 4}
    before = ours | {"seconds": 0.0}  # a restart
    heard = HeardWindow(0.5, 2.0, ("sparse",), (("index", 3), ("slot", 1), ("batch", 4)))
    assert windows_of({"windows": [ours, before]}) == [heard]
    assert windows_of({"windows": [{"start": 0.5, "seconds": 2}]}) == [HeardWindow(0.5, 2.0, (), ())]
    assert windows_of({}) == []


@pytest.mark.parametrize("seconds", [None, "1", -1, float("nan"), float("inf"), 10**400, MAX_NUMBER])
def test_what_is_no_time(seconds: Any) -> None:
    assert windows_of({"windows": [{"start": 0, "seconds": seconds}]}) == []


@given(ANY)
def test_nothing_raises(windows: Any) -> None:
    for each in windows_of({"windows": windows}):
        assert 0 <= each.start < MAX_NUMBER
        assert 0 < each.seconds < MAX_NUMBER
