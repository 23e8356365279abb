"""What is shown fits, whatever there is to show."""

import json
from dataclasses import asdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.top.seen import ADDRESS, daemon, database, instance, kafka, look
from v2td.cli.top_screen import View, allotted, lines
from v2td.cli.top_words import ago, number, seconds, size
from v2td.ops.top_figures import Figures
from v2td.ops.top_rates import figures
from v2td.ops.top_seen import Away, LastFailure, Latency, Offsets

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\r\n\t\x7f日本語" + "x" * 300
SIZES = [(80, 24), (120, 40), (60, 20), (200, 60), (20, 5), (1, 1)]


def crowd(name: str = "provider", *, count: int = 40) -> Figures:
    """Return figures with more of everything than a screen has room for."""
    now = look(
        10,
        kafka({(f"topic-{name}{number}", 0): Offsets(0, 1000 * number, 1) for number in range(count)}),
        database(
            *(instance(f"{name}@{number}", ago_seconds=number) for number in range(count)),
            latencies=tuple(Latency(f"{name}{number}", 99, 3, 9.0, 0.2, 1.5, 900.0) for number in range(count)),
            failures={f"{name}{number}": 10**number for number in range(count)},
            last=LastFailure(name, name, 4.0),
            mean=60.0,
        ),
        {f"{ADDRESS}{number}": daemon(slots=count) for number in range(2)} | {f"http://{name}": Away(name)},
    )
    return figures((now,), kafka=name, database=name, group=name)


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("name", ["provider", HOSTILE])
def test_the_screen_is_filled_and_nothing_wraps(name: str, width: int, height: int) -> None:
    shown = lines(View(5.0, crowd(name)), width, height)
    assert len(shown) == height
    assert max(line.cell_len for line in shown) <= width
    text = "".join(line.plain for line in shown)
    assert text.isprintable()


def test_all_is_shown_where_there_is_no_edge() -> None:
    shown = "\n".join(line.plain for line in lines(View(5.0, crowd(HOSTILE, count=100)), 10_000, None))
    assert shown.count("@") == 100
    assert all(line.isprintable() for line in shown.split("\n"))
    assert "q quit" not in shown


def test_what_is_left_out_is_said() -> None:
    shown = [line.plain for line in lines(View(5.0, crowd()), 80, 24)]
    (heading,) = (line for line in shown if line.startswith("INSTANCE"))
    rows = [line for line in shown if line.startswith("provider@")]
    assert heading.startswith(f"INSTANCE ({len(rows)} of 40)")
    assert len(rows) >= 2


def test_a_narrow_screen_leaves_out_what_matters_least() -> None:
    def heading(width: int) -> str:
        return next(line.plain for line in lines(View(5.0, crowd()), width, 40) if "p50" in line.plain)

    assert heading(120).split()[-7:] == ["jobs/min", "audio", "s/s", "p50", "p95", "p99", "cached"]
    assert heading(60).split()[-4:] == ["jobs/min", "p50", "p95", "p99"]
    assert heading(45).split()[-3:] == ["jobs/min", "p50", "p99"]


def test_instances_are_sorted_and_stale_ones_come_last() -> None:
    base = database(instance("b", 0, 990), instance("a", 0, 990), instance("c", 0, 990))
    now = database(instance("b", 9, 1000), instance("a", 5, 1000), instance("c", 99, 1000, ago_seconds=60))
    found = figures((look(0, database=base), look(10, database=now)), kafka="", database="", group="")

    def order(chosen: int) -> list[str]:
        shown = [line.plain for line in lines(View(5.0, found, order=chosen), 80, 40)]
        first = next(index for index, line in enumerate(shown) if line.startswith("INSTANCE"))
        return [line[0] for line in shown[first + 1 : first + 4]]

    assert order(0) == ["a", "b", "c"]
    assert order(1) == ["b", "a", "c"]
    (stale,) = (line for line in lines(View(5.0, found), 80, 40) if line.plain.startswith("c "))
    assert "gone 60 s ago" in stale.plain
    assert "dim" in str(stale.spans)


@given(st.lists(st.integers(0, 30), max_size=6), st.integers(0, 60))
def test_rows_are_given_in_turns(wanted: list[int], room: int) -> None:
    counts = allotted(wanted, room)
    used = sum(count + 1 for count in counts if count)
    assert used <= room
    assert all(count <= size for count, size in zip(counts, wanted, strict=True))
    if any(count < size for count, size in zip(counts, wanted, strict=True)):
        assert used >= room - 1, "no line is wasted but one that is too little for a heading and a row"
    cut = [count for count, size in zip(counts, wanted, strict=True) if count < size]
    assert all(before >= after for before, after in pairwise(cut))


def test_figures_are_json() -> None:
    assert json.loads(json.dumps(asdict(crowd(count=2))))["instances"][0]["name"] == "provider@0"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, "-"), (0.0, "0 s"), (0.0004, "0 ms"), (0.25, "250 ms"), (1.24, "1.2 s"), (90, "90 s")),
        *((7200, "2 h"), (150, "2.5 min"), (400_000, "4.6 d"), (45_000, "12 h")),
    ],
)
def test_times_are_short(value: float | None, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (1.25, "1.2"), (9.99, "10"), (1234.5, "1,234"), (0.04, "0.04"), (1e-9, "<0.001")],
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert number(value) == text


def test_sizes_and_ages() -> None:
    assert (size(2_140_000_000), size(740_000_000), ago(0.2), ago(3.4)) == ("2.1 GB", "740 MB", "now", "3 s ago")
