"""Whose trace a job belongs to, whatever its record's headers say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.jobs import Coordinates, Headers, Job, Replay, SourceRecord
from v2td.stages import Trace
from v2td.tracing.contexts import Contexts, is_told

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE_ID}-{SPAN_ID}-01".encode()
EARLIER = f"{TRACE_ID}-{SPAN_ID}".encode()
AT = Coordinates("cluster", "jobs", 0, 1, 1_700_000_000_000)
ALL, NONE = Contexts(1), Contexts(0)


def trace(*headers: tuple[str, bytes], contexts: Contexts = ALL, replay: Replay | None = None) -> Trace:
    return contexts.of(Job(AT, "http://host/a.wav", record=SourceRecord(None, b"", headers), replay=replay))


def test_the_producers_trace_goes_on() -> None:
    joined = trace(("traceparent", GOOD), ("tracestate", b"shop=cart"), contexts=NONE)
    assert (joined.trace_id, joined.parent_id, joined.state) == (TRACE_ID, SPAN_ID, "shop=cart")
    assert joined.sampled
    assert joined.span_id != SPAN_ID
    assert joined.traceparent == f"00-{TRACE_ID}-{joined.span_id}-01"


def test_a_producer_that_does_not_sample_decides_so() -> None:
    joined = trace(("traceparent", GOOD[:-1] + b"0"))
    assert (joined.trace_id, joined.sampled) == (TRACE_ID, False)
    assert joined.traceparent.endswith("-00")


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("traceparent", b""),),
        (("traceparent", GOOD.upper()),),
        (("traceparent", b"\xff" + GOOD),),
        (("traceparent", "٠".encode() * 55),),
        (("traceparent", b"ff" + GOOD[2:]),),
        (("traceparent", GOOD + b" " * 600),),
        (("traceparent", GOOD.replace(SPAN_ID.encode(), b"0" * 16)),),
        (("traceparent", GOOD.replace(TRACE_ID.encode(), b"0" * 32)),),
        (("Traceparent", GOOD),),  # W3C's name for Kafka is in lower case
    ],
)
def test_no_trace_but_its_own(headers: Headers) -> None:
    own = trace(*headers)
    assert own.trace_id != TRACE_ID
    assert (own.parent_id, own.state, own.sampled) == (None, None, True)


@pytest.mark.parametrize("state", [b"a" * 513, b"no pairs", b"\xff=\xff", b"a=1,a=2", b"=" * 500])
def test_a_bad_state_leaves_the_trace(state: bytes) -> None:
    joined = trace(("traceparent", GOOD), ("tracestate", state))
    assert (joined.trace_id, joined.state) == (TRACE_ID, None)


@given(st.lists(st.tuples(st.sampled_from(["traceparent", "tracestate", "v2td-trace"]), st.binary(max_size=600))))
def test_no_header_raises(headers: list[tuple[str, bytes]]) -> None:
    assert is_told(trace(*headers, replay=Replay(AT)).told)


def test_only_a_record_that_asks_again_has_a_try_before() -> None:
    assert trace(("v2td-trace", EARLIER)).earlier is None
    assert trace(("v2td-trace", EARLIER), replay=Replay(AT)).earlier == EARLIER.decode()
    for wrong in (b"", b"x", EARLIER + b"\n", b"0" * 32 + EARLIER[32:], EARLIER.upper(), b"\xff"):
        assert trace(("v2td-trace", wrong), replay=Replay(AT)).earlier is None


def test_a_share_is_sampled() -> None:
    half = Contexts(0.5)
    sampled = sum(trace(contexts=half).sampled for _ in range(2000))
    assert 800 < sampled < 1200  # 9 standard deviations
    assert not any(trace(contexts=NONE).sampled for _ in range(100))
