import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.config import EngineSettings
from v2td.engine.topology import Machine, Plan, plan, read_machine
from v2td.errors import ConfigError

# What real machines write into core_cpus_list: one line for each of their CPUs.
DESKTOP = {cpu: f"{cpu % 4},{cpu % 4 + 4}" for cpu in range(8)}  # 4 cores of 2 threads, Intel's numbering
LAPTOP = {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3", 4: "4", 5: "5"}  # 2 cores of 2 threads, 2 efficient ones
CLOUD = {0: "0", 1: "1"}


def sys_folder(tmp_path: Path, siblings: dict[int, str]) -> Path:
    for cpu, line in siblings.items():
        folder = tmp_path / f"devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "core_cpus_list").write_text(line + "\n")
    return tmp_path


def set_quota(sys: Path, group: str, text: str) -> None:
    folder = sys / "fs/cgroup" / group.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(text + "\n")


def cores(count: int, threads: int = 1) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(core + count * thread for thread in range(threads)) for core in range(count))


def slots(count: int, *, hyperthreads: int = 1, quota: float | None = None, **settings: object) -> Plan:
    return plan(Machine(cores(count, hyperthreads), quota), EngineSettings.model_validate(settings))


@pytest.mark.parametrize(("machine", "expected"), [(1, 1), (2, 2), (3, 3), (4, 3), (8, 6), (16, 14), (128, 126)])
def test_two_of_eight_cores_are_left_to_the_loop(machine: int, expected: int) -> None:
    planned = slots(machine)
    assert len(planned.slots) == expected
    assert [slot.cpus for slot in planned.slots] == [(cpu,) for cpu in range(expected)]
    assert all(slot.threads == 1 for slot in planned.slots)


def test_hyperthreads_are_no_cores() -> None:
    planned = slots(8, hyperthreads=2)
    assert [slot.cpus for slot in planned.slots] == [(cpu,) for cpu in range(6)]


@pytest.mark.parametrize(("quota", "expected"), [(0.5, 1), (1.0, 1), (1.5, 1), (2.0, 2), (4.0, 3), (100.0, 6)])
def test_a_quota_bounds_the_slots(quota: float, expected: int) -> None:
    assert len(slots(8, quota=quota).slots) == expected


def test_what_is_set_by_hand_is_taken() -> None:
    assert [slot.cpus for slot in slots(8, slots=3).slots] == [(0,), (1,), (2,)]
    assert [slot.cpus for slot in slots(8, threads=3).slots] == [(0, 1, 2), (3, 4, 5)]
    assert [slot.cpus for slot in slots(8, cpus=[4, 6]).slots] == [(4,), (6,)]
    assert [slot.cpus for slot in slots(8, cpus=[4, 6], threads=2).slots] == [(4, 6)]
    assert len(slots(1, slots=5).slots) == 5, "more slots than cores, if that is what one wants"


@given(
    machine=st.builds(
        Machine,
        st.integers(1, 130).flatmap(lambda count: st.integers(1, 2).map(lambda threads: cores(count, threads))),
        st.none() | st.floats(0.01, 300),
    ),
    count=st.integers(0, 40),
    threads=st.integers(0, 40),
    cpus=st.lists(st.integers(0, 140), unique=True, max_size=3),
)
def test_every_slot_has_cpus_of_the_machine_and_its_threads(
    machine: Machine, count: int, threads: int, cpus: list[int]
) -> None:
    settings = EngineSettings(slots=count, threads=threads, cpus=tuple(cpus))
    if not set(cpus) <= {cpu for core in machine.cores for cpu in core}:
        with pytest.raises(ConfigError, match=r"^engine\.cpus = .* is not one of"):
            plan(machine, settings)
        return
    planned = plan(machine, settings)
    assert len(planned.slots) == count or (count == 0 and planned.slots)
    usable = set(cpus) or {cpu for core in machine.cores for cpu in core}
    for slot in planned.slots:
        assert set(slot.cpus) <= usable
        assert len(slot.cpus) == len(set(slot.cpus)) == min(slot.threads, len(cpus or machine.cores))
        assert slot.threads == (threads or 1)
    assert any(str(len(planned.slots)) in reason for reason in planned.reasons)
    if count == 0 and threads <= 1:
        taken = [slot.cpus for slot in planned.slots]
        assert len(set(taken)) == len(taken), "two slots on one core"


@pytest.mark.parametrize(
    ("recorded", "allowed", "expected"),
    [
        (DESKTOP, range(8), ((0, 4), (1, 5), (2, 6), (3, 7))),
        (DESKTOP, (1, 2, 6), ((1,), (2, 6))),  # a cpuset
        (LAPTOP, range(6), ((0, 1), (2, 3), (4,), (5,))),
        (LAPTOP, (1, 3, 5), ((1,), (3,), (5,))),
        (CLOUD, (0, 1), ((0,), (1,))),
        ({}, (0, 1, 2), ((0,), (1,), (2,))),  # no topology to be seen, as in some sandboxes
    ],
)
def test_cores_are_read_from_sys_and_the_affinity_mask(
    tmp_path: Path, recorded: dict[int, str], allowed: tuple[int, ...], expected: tuple[tuple[int, ...], ...]
) -> None:
    assert read_machine(sys_folder(tmp_path, recorded), allowed).cores == expected


def own_group() -> str:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    group = next((line[3:] for line in lines if line.startswith("0::")), None)
    assert group is not None, "this machine has no cgroup v2, and so no cpu.max to look for"
    return group


@pytest.mark.parametrize(("text", "quota"), [("max 100000", None), ("150000 100000", 1.5), ("50000 100000", 0.5)])
def test_the_quota_is_that_of_the_cgroup(tmp_path: Path, text: str, quota: float | None) -> None:
    sys = sys_folder(tmp_path, CLOUD)
    set_quota(sys, own_group(), text)
    assert read_machine(sys, (0, 1)) == Machine(((0,), (1,)), quota)


def test_a_quota_of_a_group_above_counts_too(tmp_path: Path) -> None:
    sys = sys_folder(tmp_path, CLOUD)
    set_quota(sys, own_group(), "400000 100000")
    set_quota(sys, "", "200000 100000")
    assert read_machine(sys, (0, 1)).quota == 2.0


def test_this_machine_is_understood() -> None:
    machine = read_machine()
    assert {cpu for core in machine.cores for cpu in core} == os.sched_getaffinity(0)
    assert plan(machine, EngineSettings()).slots
