"""Rates, percents and percentiles out of looks."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.top.seen import ADDRESS, daemon, database, instance, kafka, look
from v2td.ops.top_admin import measured
from v2td.ops.top_daemon import bucket_quantile
from v2td.ops.top_figures import Figures
from v2td.ops.top_rates import figures
from v2td.ops.top_seen import Away, Buckets, DaemonSeen, Labels, Latency, Look, Offsets


def shown(*looks: Look) -> Figures:
    return figures(looks, kafka="k:9092", database="db/v2td", group="g")


def test_rates_are_those_since_the_oldest_look() -> None:
    first = {("a", 0): Offsets(0, 100, 90), ("a", 1): Offsets(0, 10, None), ("b", 0): Offsets(0, 0, None)}
    last = {("a", 0): Offsets(0, 160, 120), ("a", 1): Offsets(0, 10, 10), ("b", 0): Offsets(0, 3, None)}
    messages = shown(look(0, kafka(first)), look(10, Away("a while")), look(30, kafka(last))).messages
    assert messages is not None
    assert (messages.in_per_minute, messages.out_per_minute, messages.rate_seconds) == (126, 80, 30)
    assert [(each.topic, each.lag, each.in_per_minute) for each in messages.topics] == [("a", 40, 120), ("b", 3, 6)]
    assert messages.lag == 43


def test_a_first_look_has_no_rates() -> None:
    messages = shown(look(0, kafka({("a", 0): Offsets(0, 5, 3)}))).messages
    assert messages is not None
    assert (messages.lag, messages.in_per_minute, messages.out_per_minute) == (2, None, None)


@pytest.mark.parametrize(
    ("offsets", "lag"),
    [
        (Offsets(0, 10, None), 10),
        (Offsets(4, 10, None), 6),
        (Offsets(4, 10, 2), 6),  # retention deleted what was not read
        (Offsets(0, 10, 50), 0),  # the topic was created anew
        (Offsets(0, 10, 7), 3),
    ],
)
def test_lag_is_what_is_there_and_not_committed(offsets: Offsets, lag: int) -> None:
    assert offsets.lag == lag


def test_partitions_that_are_new_or_began_anew_are_no_rate() -> None:
    first = {("a", 0): Offsets(0, 1000, 1000)}
    last = {("a", 0): Offsets(0, 5, 5), ("a", 1): Offsets(0, 500, 500)}
    messages = shown(look(0, kafka(first)), look(60, kafka(last))).messages
    assert messages is not None
    assert (messages.in_per_minute, messages.out_per_minute) == (0, 0)


def test_the_cpu_of_an_instance_is_that_between_two_of_its_reports() -> None:
    looks = (
        look(0, database=database(instance(cpu_seconds=10, seen_epoch=1000))),
        look(5, database=database(instance(cpu_seconds=10, seen_epoch=1000))),
        look(12, database=database(instance(cpu_seconds=45, seen_epoch=1010))),
    )
    assert shown(*looks[:2]).instances[0].cpu_percent is None
    assert shown(*looks).instances[0].cpu_percent == 350


def test_the_cpu_of_another_process_of_the_same_name_is_not_mixed_in() -> None:
    looks = (
        look(0, database=database(instance(cpu_seconds=1000, pid=7))),
        look(10, database=database(instance(cpu_seconds=5, pid=8, seen_epoch=1010))),
    )
    assert shown(*looks).instances[0].cpu_percent is None


def test_silent_instances_are_stale() -> None:
    now = database(instance("a", ago_seconds=29), instance("b", ago_seconds=31))
    assert [each.stale for each in shown(look(0, database=now)).instances] == [False, True]


def test_the_backlog_takes_speed_from_postgres_and_cores_from_instances() -> None:
    latencies = (Latency("local", 30, 0, 1200.0, 1.0, 2.0, 3.0),)
    before = database(instance(cpu_seconds=0, seen_epoch=1000), mean=60.0, latencies=latencies)
    now = database(instance(cpu_seconds=20, seen_epoch=1010), mean=60.0, latencies=latencies)
    partitions = kafka({("a", 0): Offsets(0, 120, 0)})
    found = shown(look(0, partitions, before), look(10, partitions, now))
    assert found.jobs is not None
    assert found.jobs.audio_seconds_per_second == 4
    assert found.backlog is not None
    assert (found.backlog.records, found.backlog.audio_seconds, found.backlog.drain_seconds) == (120, 7200, 1800)
    assert found.backlog.cores_needed == 1  # two busy cores do 4 s in a second, and the backlog asks for 2


def test_errors_are_a_part_of_what_ended() -> None:
    latencies = (Latency("local", 60, 0, 1.0, None, None, None), Latency("openai", 30, 30, 1.0, None, None, None))
    found = shown(look(0, database=database(latencies=latencies, failures={"timeout": 6, "poison": 4}))).jobs
    assert found is not None
    assert (found.transcribed, found.failed, found.per_minute, found.error_rate) == (90, 10, 20, 0.1)
    nothing = shown(look(0, database=database())).jobs
    assert nothing is not None
    assert (nothing.per_minute, nothing.error_rate) == (0, None)


def test_sources_that_are_away_are_told_and_the_rest_goes_on() -> None:
    found = shown(look(0, Away("no broker"), database(), {ADDRESS: Away("refused"), "unix:/x": daemon()}))
    assert found.trouble == {"Kafka": "no broker", ADDRESS: "refused"}
    assert (found.reached, found.messages, found.backlog) == (2, None, None)
    assert [each.address for each in found.daemons] == ["unix:/x"]


def test_percentiles_of_a_daemon_are_those_since_the_oldest_look() -> None:
    key = "v2td_stage_seconds", (("stage", "fetch"),)
    first = daemon({key: Buckets(((1.0, 100), (2.0, 100), (math.inf, 100)))})
    last = daemon({key: Buckets(((1.0, 100), (2.0, 110), (math.inf, 110)))})
    found = shown(look(0, daemons={ADDRESS: first}), look(10, daemons={ADDRESS: last})).daemons[0].stages[0]
    assert (found.stage, found.p50_seconds, found.p95_seconds) == ("fetch", 1.5, 1.95)
    restarted = daemon({key: Buckets(((1.0, 10), (2.0, 10), (math.inf, 10)))}, pid=8)
    found = shown(look(0, daemons={ADDRESS: last}), look(10, daemons={ADDRESS: restarted})).daemons[0].stages[0]
    assert found.p50_seconds == 0.5
    found = shown(look(0, daemons={ADDRESS: last}), look(10, daemons={ADDRESS: last})).daemons[0].stages[0]
    assert found.p50_seconds == 0.55, "nothing since then: as since its start"


def test_the_cpu_of_a_slot_whose_process_was_replaced() -> None:
    def at(cpu: float) -> dict[str, DaemonSeen]:
        return {ADDRESS: daemon(samples={("v2td_slot_cpu_seconds", (("slot", "0"),)): cpu})}

    def percent(before: float, now: float) -> float | None:
        looks = look(0, daemons=at(before)), look(10, daemons=at(now))
        return shown(*looks).daemons[0].slots[0].cpu_percent

    assert percent(5, 15) == 100
    assert percent(500, 5) == 50


def test_why_a_daemon_takes_no_records() -> None:
    samples: dict[tuple[str, Labels], float] = {("v2td_circuit_open", ()): 0.0, ("v2td_intake_stopped", ()): 1.0}
    (found,) = shown(look(0, daemons={ADDRESS: daemon(samples=samples)})).daemons
    assert found.held == "somebody paused it"


def test_the_machine() -> None:
    found = shown(look(0, cpu_seconds=100), look(10, cpu_seconds=130)).machine
    assert (found.cores, found.cpu_percent) == (4, 75)


def test_what_prometheus_format_holds_is_read() -> None:
    samples, histograms = measured(
        "# TYPE v2td_circuit_open gauge\nv2td_circuit_open 1.0\n"
        "# TYPE v2td_drain_seconds gauge\nv2td_drain_seconds NaN\n"
        "# TYPE other gauge\nother 1.0\n"
        '# TYPE v2td_s histogram\nv2td_s_bucket{le="1.0",stage="a"} 2\nv2td_s_bucket{le="+Inf",stage="a"} 3\n'
        'v2td_s_count{stage="a"} 3\nv2td_s_sum{stage="a"} 4\n'
    )
    assert samples["v2td_circuit_open", ()] == 1
    assert not {name for name, _ in samples} & {"other", "v2td_drain_seconds"}
    assert histograms == {("v2td_s", (("stage", "a"),)): Buckets(((1.0, 2.0), (math.inf, 3.0)))}


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.floats(0, 1))
def test_a_quantile_lies_within_the_buckets(counts: list[int], part: float) -> None:
    total, rising = 0, []
    for bound, count in enumerate(counts, 1):
        total += count
        rising.append((float(bound), float(total)))
    found = bucket_quantile(part, Buckets((*rising, (math.inf, float(total)))))
    if total == 0:
        assert found is None
    else:
        assert found is not None
        assert 0 <= found <= len(counts)
        reached = sum(count for bound, count in enumerate(counts, 1) if bound <= math.ceil(found))
        assert reached >= part * total - 1e-6
