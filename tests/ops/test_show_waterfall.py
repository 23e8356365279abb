"""Waterfalls in characters: whatever the bars, the lines fit, and every bar can be seen."""

from hypothesis import given
from hypothesis import strategies as st

from v2td.ops.show_waterfall import doubted, drawn
from v2td.waterfall import Bar, bars

TIMINGS = {
    "attempts": 1,
    "fetch": 0.5,
    "queue": 0.0,
    "prepare": 1.0,
    "transcribe": 1.5,
    "windows": [
        {"index": 0, "slot": 0, "start": 0.5, "seconds": 0.75, "flags": [], "batch": 1},
        {"index": 1, "slot": 0, "start": 1.25, "seconds": 0.75, "flags": ["repetition", "silence"], "batch": 1},
        {"index": 2, "slot": 3, "start": 0.5, "seconds": 1.5, "flags": [], "batch": 1},
        {"index": 3, "slot": -1, "start": 0.0, "seconds": 0.0, "flags": [], "batch": 1},
    ],
}


def test_a_job_as_it_is_seen() -> None:
    assert drawn(bars(TIMINGS), 46) == [
        "fetch          █████                   0.500 s",
        "queue               █                  0.000 s",
        "prepare             ██████████         1.000 s",
        "transcribe          ███████████████    1.500 s",
        "heard before   █                        1 win.",
        "slot 0              ███████▓▓▓▓▓▓▓▓     2 win.",
        "slot 3              ███████████████     1 win.",
        "               0            2.000 s",
    ]
    assert doubted(bars(TIMINGS)) == ["window 1: repetition, silence (slot 0, from 1.2 s on, 0.8 s)"]
    assert drawn(bars({}), 80) == []


SECONDS = st.floats(0.0, 1e6, allow_nan=False)


@given(
    st.lists(
        st.builds(Bar, st.sampled_from(["fetch", "a-very-long-stage-name"]), SECONDS, SECONDS, st.integers(1, 99))
    ),
    st.lists(st.builds(Bar, st.just("window"), SECONDS, SECONDS, st.just(1), slot=st.integers(-1, 3))),
    st.integers(46, 200),
)
def test_lines_fit_and_every_stage_is_seen(stages: list[Bar], windows: list[Bar], columns: int) -> None:
    lines = drawn([*stages, *windows], columns)
    assert all(len(line) <= columns for line in lines)
    if lines:
        assert all({"█", "▓"} & set(line) for line in lines[:-1])
        assert len(lines) == len(stages) + len({each.slot for each in windows}) + 1
