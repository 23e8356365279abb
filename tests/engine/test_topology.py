from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.engine.recorded import read_recorded
from v2td.config import EngineSettings
from v2td.engine.topology import MODEL_SHARE, OWN_BYTES, Plan, SlotPlan, plan, refit, reserved_cores, speedup
from v2td.errors import ConfigError
from v2td.machine import Cpu, Machine, read_machine

GIB = 1 << 30


def machine_of(
    cores: int, *, twins: int = 1, nodes: int = 1, caches: int = 1, node_bytes: int = 0, **limits: object
) -> Machine:
    """Equal cores in so many nodes, each of so many caches; hyperthreads are numbered behind all cores."""
    cpus = tuple(
        Cpu(core + cores * twin, core, twin, core * nodes // cores, core * nodes * caches // cores)
        for twin in range(twins)
        for core in range(cores)
    )
    return Machine(cpus, nodes=tuple((node, node_bytes) for node in range(nodes)), **limits)  # type: ignore[arg-type]


def planned(machine: Machine, model_bytes: int | None = None, **settings: object) -> Plan:
    return plan(machine, EngineSettings.model_validate(settings), model_bytes)


def cpus_of(layout: Plan) -> list[tuple[int, ...]]:
    return [slot.cpus for slot in layout.slots]


def holding(copies: int, model_bytes: int) -> int:
    """Bytes of memory that hold so many copies."""
    return OWN_BYTES + int((copies + 0.5) * model_bytes / MODEL_SHARE)


@pytest.mark.parametrize(
    ("cores", "expected"), [(1, 1), (2, 2), (3, 3), (4, 3), (8, 6), (10, 8), (12, 10), (16, 14), (32, 28), (128, 112)]
)
def test_two_of_eight_cores_are_left(cores: int, expected: int) -> None:
    layout = planned(machine_of(cores))
    assert cpus_of(layout) == [(cpu,) for cpu in range(expected)]
    assert {slot.threads for slot in layout.slots} == {1}


@given(st.integers(1, 1024))
def test_the_reserve_grows_with_the_machine(cores: int) -> None:
    assert reserved_cores(cores) <= reserved_cores(cores + 1) <= reserved_cores(cores) + 1
    assert reserved_cores(cores) <= cores / 4


def test_slots_that_share_their_cpus_with_the_loop_are_niced() -> None:
    assert {slot.nice for slot in planned(machine_of(2)).slots} == {5}
    assert {slot.nice for slot in planned(machine_of(8)).slots} == {0}
    assert {slot.nice for slot in planned(machine_of(8), cpus=[0, 1]).slots} == {5}


def test_hyperthreads_only_when_asked_for() -> None:
    machine = machine_of(4, twins=2)
    assert cpus_of(planned(machine)) == [(0,), (1,), (2,)]
    assert cpus_of(planned(machine, slots=6)) == [(0,), (1,), (2,), (3,), (4,), (5,)]
    assert cpus_of(planned(machine, cpus=[0, 4])) == [(0,), (4,)]
    assert cpus_of(planned(machine, threads=8)) == [(0, 1, 2, 3, 4, 5, 6, 7)]


@pytest.mark.parametrize(("quota", "expected"), [(0.5, 1), (1.0, 1), (1.5, 1), (2.0, 2), (4.0, 3), (7.9, 6)])
def test_a_quota_bounds_the_slots_and_unpins_them(quota: float, expected: int) -> None:
    layout = planned(machine_of(8, quota=quota))
    assert layout.slots == (SlotPlan((), 1, nice=5 if quota < 4 else 0),) * expected
    assert layout.reasons[-1].startswith("not pinned")
    assert f"quota of {quota:g} CPUs" in layout.reasons[0]
    by_hand = planned(machine_of(8, quota=quota), cpus=[2, 3, 4, 5])
    assert cpus_of(by_hand) == [(2,), (3,), (4,), (5,)][: int(max(1, quota))]
    assert cpus_of(planned(machine_of(2, quota=quota + 2))) == [(0,), (1,)], "a quota beyond the cores"


def test_set_by_hand() -> None:
    eight = machine_of(8)
    assert cpus_of(planned(eight, threads=3)) == [(0, 1, 2), (3, 4, 5)]
    assert cpus_of(planned(eight, slots=2, threads=1)) == [(0,), (1,)]
    assert cpus_of(planned(eight, slots=3)) == [(0, 1), (2, 3), (4, 5)], "threads follow from the slots"
    assert cpus_of(planned(eight, slots=7)) == [(cpu,) for cpu in range(7)], "and the reserve, too"
    assert cpus_of(planned(eight, cpus=[6, 4])) == [(6,), (4,)]
    assert cpus_of(planned(eight, cpus=[4, 6], threads=2)) == [(4, 6)]
    assert cpus_of(planned(eight, reserved_cpus=0)) == [(cpu,) for cpu in range(8)]
    assert cpus_of(planned(eight, reserved_cpus=5)) == [(0,), (1,), (2,)]
    assert cpus_of(planned(machine_of(1), slots=3)) == [(0,)] * 3, "more slots than cores, if that is what one wants"
    assert planned(eight, slots=3).reasons[-1] == "3 slots of 2 threads (as set)"


def test_wrong_by_hand() -> None:
    with pytest.raises(ConfigError, match=r"^engine\.cpus = \[1, 9\]: CPU 9 is not one of \[0, 1\], which we may use"):
        planned(machine_of(2), cpus=[1, 9])
    with pytest.raises(ConfigError, match=r"^engine\.reserved_cpus = 2: leave the slots at least one of the 2 cores"):
        planned(machine_of(2), reserved_cpus=2)
    with pytest.raises(ConfigError, match=r"^engine\.reserved_cpus = 1: .* one of the 1 core "):
        planned(machine_of(64, quota=1.5), reserved_cpus=1)


@pytest.mark.parametrize(
    ("copies", "slots", "threads"), [(9, 6, 1), (6, 6, 1), (5, 5, 1), (4, 3, 2), (3, 3, 2), (2, 2, 3), (1, 1, 6)]
)
def test_where_copies_do_not_fit_fewer_slots_get_more_threads(copies: int, slots: int, threads: int) -> None:
    layout = planned(machine_of(8, memory=holding(copies, GIB)), GIB)
    assert (len(layout.slots), {slot.threads for slot in layout.slots}) == (slots, {threads})
    assert f"takes up to 1.0 GiB, {holding(copies, GIB) / GIB:.1f} GiB hold {copies}" in layout.reasons[2]


def test_too_little_memory_is_said_and_tried() -> None:
    layout = planned(machine_of(2, memory=GIB), 2 * GIB)
    assert cpus_of(layout) == [(0, 1)]
    assert "hold 0: that may be too few" in layout.reasons[2]
    layout = planned(machine_of(4, memory=holding(2, GIB)), GIB, slots=4)
    assert cpus_of(layout) == [(0,), (1,), (2,), (3,)], "set by hand"
    assert "hold 2: that may be too few" in layout.reasons[2]


def test_the_measured_size_corrects_the_plan() -> None:
    machine = machine_of(8, memory=holding(6, GIB))
    before = planned(machine, GIB)
    assert refit(before, machine, EngineSettings(), GIB // 2) is before
    assert refit(before, machine, EngineSettings(), GIB) is before
    after = refit(before, machine, EngineSettings(), 2 * GIB)
    assert [(slot.cpus, slot.threads) for slot in after.slots] == [((0, 1), 2), ((2, 3), 2), ((4, 5), 2)]
    assert refit(after, machine, EngineSettings(), 2 * GIB) is after
    by_hand = EngineSettings(slots=6)
    assert refit(before, machine, by_hand, 2 * GIB) is before
    without_limits = machine_of(8)
    assert refit(before, without_limits, EngineSettings(), 2 * GIB) is before


def test_slots_spread_over_nodes_and_caches() -> None:
    machine = machine_of(16, nodes=2, caches=2, node_bytes=64 * GIB)
    layout = planned(machine, slots=4, threads=2)
    assert cpus_of(layout) == [(0, 1), (8, 9), (4, 5), (12, 13)]
    assert [slot.node for slot in layout.slots] == [0, 1, 0, 1]


def test_a_slot_shares_a_cache_where_that_can_be() -> None:
    machine = machine_of(16, caches=2)
    assert cpus_of(planned(machine, threads=3)) == [(0, 1, 2), (8, 9, 10), (3, 4, 5), (11, 12, 13)]
    assert cpus_of(planned(machine, threads=5)) == [(0, 1, 2, 3, 4), (8, 9, 10, 11, 12)]
    assert cpus_of(planned(machine, threads=12)) == [tuple(range(12))], "no cache has twelve"


def test_a_slot_across_nodes_only_by_hand() -> None:
    machine = machine_of(8, nodes=2, node_bytes=4 * GIB, memory=8 * GIB)
    layout = planned(machine, 5 * GIB)
    assert [(slot.cpus, slot.node) for slot in layout.slots] == [((0, 1, 2, 3), None)], "no node has room to bind to"
    layout = planned(machine, 3 * GIB)
    assert [(slot.cpus, slot.node) for slot in layout.slots] == [((0, 1, 2), 0), ((4, 5, 6), 1)]
    assert [(slot.cpus, slot.node) for slot in planned(machine, threads=6).slots] == [(tuple(range(6)), None)]


def test_a_node_gets_no_more_copies_than_it_holds() -> None:
    machine = Machine(machine_of(8, nodes=2).cpus, memory=100 * GIB, nodes=((0, 3 * GIB), (1, 97 * GIB)))
    layout = planned(machine, 2 * GIB)
    assert Counter(slot.node for slot in layout.slots) == {0: 1, 1: 4}


def test_a_slot_for_each_gpu() -> None:
    machine = machine_of(16, gpus=3, memory=GIB)
    layout = planned(machine, 8 * GIB, device="cuda")
    assert [(slot.cpus, slot.threads, slot.device_index) for slot in layout.slots] == [
        ((0, 1, 2, 3), 4, 0),
        ((4, 5, 6, 7), 4, 1),
        ((8, 9, 10, 11), 4, 2),
    ]
    assert layout.reasons[2] == "3 GPUs to be seen, a slot for each"
    assert [slot.device_index for slot in planned(machine, device="cuda", slots=5).slots] == [0, 1, 2, 0, 1]
    assert len(planned(machine_of(2), device="cuda").slots) == 1, "one that cannot be counted is tried"
    many = planned(machine_of(2, gpus=8), device="cuda")
    assert [slot.threads for slot in many.slots] == [1] * 8
    assert refit(layout, machine, EngineSettings(device="cuda"), 8 * GIB) is layout


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("laptop", [(0,), (1,), (2,)]),
        ("container", [()]),
        ("cpuset", [(1,), (2,)]),
        ("one_core", [(0,)]),
        ("cgroup_v1", [(), (), ()]),
        ("nested_v1", [(), ()]),
        ("sandbox", [(0,), (1,), (2,)]),
        ("memory_limit", [(0,), (1,), (2,), (3,), (4,), (5,)]),
        ("big_little", [(4,), (5,), (6,), (7,), (0,), (1,)]),
    ],
)
def test_recorded_machines(tmp_path: Path, name: str, expected: list[tuple[int, ...]]) -> None:
    layout = planned(read_recorded(name, tmp_path))
    assert cpus_of(layout) == expected
    assert {(slot.threads, slot.node) for slot in layout.slots} == {(1, None)}


def test_two_sockets(tmp_path: Path) -> None:
    machine = read_recorded("two_sockets", tmp_path)
    layout = planned(machine)
    assert layout.reasons == (
        "32 physical cores may be used, on 2 NUMA nodes",
        "4 left to the loop and the decoders",
        "28 slots of 1 thread",
    )
    assert Counter(slot.node for slot in layout.slots) == {0: 14, 1: 14}
    large = planned(machine, 30 * GIB)
    assert [(slot.cpus, slot.node) for slot in large.slots] == [
        ((0, 1, 2, 3), 0),
        ((16, 17, 18, 19), 1),
        ((8, 9, 10, 11), 0),
        ((24, 25, 26, 27), 1),
        ((4, 5, 6, 7), 0),
        ((20, 21, 22, 23), 1),
    ], "six copies fit"


def test_memory_bounds_the_slots_of_a_service(tmp_path: Path) -> None:
    machine = read_recorded("memory_limit", tmp_path)
    assert [(slot.cpus, slot.threads) for slot in planned(machine, GIB * 3 // 2).slots] == [
        ((0, 1, 2), 3),
        ((3, 4, 5), 3),
    ]


def test_few_copies_go_to_the_fast_cores(tmp_path: Path) -> None:
    machine = read_recorded("big_little", tmp_path)
    assert cpus_of(planned(machine, 2 * GIB)) == [(4, 5), (6, 7)], "two small cores would add less"


MACHINES = st.builds(
    machine_of,
    st.integers(1, 130),
    twins=st.integers(1, 2),
    nodes=st.integers(1, 3),
    caches=st.integers(1, 3),
    node_bytes=st.integers(0, 64 * GIB),
    quota=st.none() | st.floats(0.01, 300),
    memory=st.none() | st.integers(0, 256 * GIB),
    gpus=st.integers(0, 4),
)
BY_HAND = st.fixed_dictionaries(
    {
        "slots": st.integers(0, 40),
        "threads": st.integers(0, 40),
        "cpus": st.lists(st.integers(0, 140), unique=True, max_size=3),
        "device": st.sampled_from(["cpu", "cuda"]),
    }
)
MODEL_BYTES = st.none() | st.integers(1 << 20, 64 * GIB)


@given(machine=MACHINES, by_hand=BY_HAND, model_bytes=MODEL_BYTES)
def test_every_slot_is_one_of_this_machine(machine: Machine, by_hand: dict[str, Any], model_bytes: int | None) -> None:
    ours = {cpu.number: cpu for cpu in machine.cpus}
    count, threads, cpus = by_hand["slots"], by_hand["threads"], by_hand["cpus"]
    assume(set(cpus) <= set(ours))
    layout = planned(machine, model_bytes, **by_hand)
    assert len(layout.slots) == count or (count == 0 and layout.slots)
    assert any(str(len(layout.slots)) in reason for reason in layout.reasons)
    for slot in layout.slots:
        assert set(slot.cpus) <= set(cpus or ours)
        assert len(slot.cpus) == len(set(slot.cpus))
        assert slot.threads == threads or (threads == 0 and slot.threads >= 1)
        assert slot.node is None or {ours[cpu].node for cpu in slot.cpus} == {slot.node}


@given(machine=MACHINES, model_bytes=MODEL_BYTES)
def test_what_is_planned_alone(machine: Machine, model_bytes: int | None) -> None:
    layout = planned(machine, model_bytes)
    ours = {cpu.number: cpu for cpu in machine.cpus}
    taken = [cpu for slot in layout.slots for cpu in slot.cpus]
    cores = machine.cores if machine.quota is None else max(1, min(machine.cores, int(machine.quota)))
    assert len(set(taken)) == len(taken), "two slots on one CPU"
    assert all(ours[cpu].twin == 0 for cpu in taken)
    assert all(len({ours[cpu].node for cpu in slot.cpus}) <= 1 for slot in layout.slots), "across nodes"
    assert sum(slot.threads for slot in layout.slots) <= cores - reserved_cores(cores)
    if model_bytes is not None and machine.memory is not None:
        assert len(layout.slots) == 1 or len(layout.slots) * model_bytes <= machine.memory
        assert refit(layout, machine, EngineSettings(), model_bytes) is layout


def test_threads_help_less_and_less() -> None:
    assert speedup(1) == pytest.approx(1)
    assert 1.4 < speedup(2) < 1.8
    assert all(speedup(threads + 1) / speedup(threads) < (threads + 1) / threads for threads in range(1, 64))


def test_this_machine_has_a_plan() -> None:
    assert plan(read_machine(), EngineSettings()).slots
