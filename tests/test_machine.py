import os
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from tests.engine.recorded import NAMES, read_recorded
from v2td.cgroups import cpu_quota, memory_limit
from v2td.machine import Cpu, parse_list, read_machine

GIB = 1 << 30


def test_cores_hyperthreads_and_speeds(tmp_path: Path) -> None:
    laptop = read_recorded("laptop", tmp_path)
    assert laptop.cpus[0] == Cpu(0, core=0, twin=0, node=0, cache=0, capacity=1024)
    assert laptop.cpus[6] == Cpu(6, core=2, twin=1, node=0, cache=0, capacity=1002)
    assert (laptop.cores, laptop.quota, laptop.memory) == (4, None, 16116496 * 1024)


def test_nodes_and_caches(tmp_path: Path) -> None:
    sockets = read_recorded("two_sockets", tmp_path)
    assert (len(sockets.cpus), sockets.cores) == (64, 32)
    assert sockets.nodes == ((0, 131072000 * 1024), (1, 131072000 * 1024))
    assert sockets.cpus[24] == Cpu(24, core=24, twin=0, node=1, cache=24)
    assert sockets.cpus[40] == Cpu(40, core=8, twin=1, node=0, cache=8)


def test_kinds_of_cores(tmp_path: Path) -> None:
    phone = read_recorded("big_little", tmp_path)
    assert [cpu.capacity for cpu in phone.cpus] == [250] * 4 + [912] * 3 + [1024]
    assert [cpu.cache for cpu in phone.cpus] == [0] * 4 + [4] * 4


def test_a_cpuset_leaves_part_of_the_cores(tmp_path: Path) -> None:
    cut = read_recorded("cpuset", tmp_path)
    assert [(cpu.number, cpu.core, cpu.twin) for cpu in cut.cpus] == [(1, 1, 0), (2, 2, 0), (6, 2, 1)]


@pytest.mark.parametrize(
    ("name", "quota", "memory"),
    [
        ("laptop", None, 16116496 * 1024),  # "max" everywhere, so the RAM counts
        ("container", 1.5, 3 * GIB),
        ("cgroup_v1", 3.0, 4 * GIB),  # found below the mount, though /proc names a group of the host
        ("nested_v1", 2.0, 8000000 * 1024),  # of the slice above; version 1 has a number for "no limit"
        ("memory_limit", None, 5 * GIB),  # MemoryHigh of the slice above
        ("one_core", None, 2014000 * 1024),  # no file in its cgroup
        ("big_little", None, 7940000 * 1024),  # no cgroups
        ("sandbox", None, None),
    ],
)
def test_limits(tmp_path: Path, name: str, quota: float | None, memory: int | None) -> None:
    machine = read_recorded(name, tmp_path)
    assert (machine.quota, machine.memory) == (quota, memory)


def test_the_tightest_quota_counts(tmp_path: Path) -> None:
    read_recorded("laptop", tmp_path)
    service = tmp_path / "sys/fs/cgroup/system.slice/v2td.service"
    for here, above, expected in (("400000", "200000", 2.0), ("50000", "200000", 0.5), ("max", "max", None)):
        (service / "cpu.max").write_text(f"{here} 100000\n")
        (service.parent / "cpu.max").write_text(f"{above} 100000\n")
        assert cpu_quota(tmp_path) == expected


def test_a_group_out_of_sight_does_not_lead_out_of_the_mount(tmp_path: Path) -> None:
    read_recorded("container", tmp_path)
    (tmp_path / "proc/self/cgroup").write_text("0::/../../other\n")
    (tmp_path / "sys/fs/other").mkdir()
    (tmp_path / "sys/fs/other/memory.max").write_text("1\n")
    assert memory_limit(tmp_path) == 3 * GIB


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_of_one_cpu_is_one_core(tmp_path: Path, name: str) -> None:
    read_recorded(name, tmp_path)
    machine = read_machine(tmp_path, [0])
    assert ([cpu.number for cpu in machine.cpus], machine.cores) == ([0], 1)


def test_older_kernels_name_siblings_otherwise(tmp_path: Path) -> None:
    read_recorded("laptop", tmp_path)
    for file in tmp_path.rglob("core_cpus_list"):
        file.rename(file.with_name("thread_siblings_list"))
    assert read_machine(tmp_path, range(8)).cores == 4


def test_nodes_whose_memory_is_not_ours(tmp_path: Path) -> None:
    read_recorded("two_sockets", tmp_path)
    (tmp_path / "proc/self/status").write_text("Mems_allowed_list:\t1\n")
    assert [node for node, _ in read_machine(tmp_path, range(64)).nodes] == [1]


@pytest.mark.parametrize(
    ("environ", "files", "expected"),
    [
        ({}, (), 0),
        ({}, ("dev/nvidia0", "dev/nvidia1", "dev/nvidiactl", "dev/nvidia-uvm"), 2),
        ({}, ("proc/driver/nvidia/gpus/0000:01:00.0/x", "proc/driver/nvidia/gpus/0000:41:00.0/x", "dev/nvidia0"), 2),
        ({"CUDA_VISIBLE_DEVICES": "1"}, ("dev/nvidia0", "dev/nvidia1"), 1),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8f3a, GPU-77b1"}, (), 2),
        ({"CUDA_VISIBLE_DEVICES": "0,-1,1"}, ("dev/nvidia0", "dev/nvidia1"), 1),  # as CUDA reads it
        ({"CUDA_VISIBLE_DEVICES": ""}, ("dev/nvidia0",), 0),
    ],
)
def test_gpus(tmp_path: Path, environ: Mapping[str, str], files: tuple[str, ...], expected: int) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert read_recorded("sandbox", tmp_path, environ=environ).gpus == expected


def test_lists_of_the_kernel() -> None:
    assert parse_list("0-2,5,7-8\n") == [0, 1, 2, 5, 7, 8]
    assert parse_list("\n") == []  # a node without CPUs


def test_this_machine_is_understood() -> None:
    machine = read_machine()
    assert {cpu.number for cpu in machine.cpus} == os.sched_getaffinity(0)
    assert 1 <= machine.cores <= (psutil.cpu_count(logical=False) or len(machine.cpus))
    assert machine.memory is not None
    assert 0 < machine.memory <= psutil.virtual_memory().total
