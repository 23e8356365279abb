"""The look at the machine that processes are planned from: /sys, /proc, the cgroups (v1 and v2), our own affinity mask.

The kernel has taken the cpuset out of the affinity mask already. What cannot be read is taken as absent: sandboxes
hide much, and every machine has at least the CPUs of the mask.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from v2td.cgroups import cpu_quota, memory_limit

FULL_CAPACITY = 1024


@dataclass(frozen=True, slots=True)
class Cpu:
    """One logical CPU that we may use.

    `core` is a number that the hyperthreads of a core share, `twin` 0 for the first of them that is ours. `cache`
    is shared by those with a last-level cache in common. `capacity`: speed, 1024 for the fastest of the machine.
    """

    number: int
    core: int
    twin: int = 0
    node: int = 0
    cache: int = 0
    capacity: int = FULL_CAPACITY


@dataclass(frozen=True, slots=True)
class Machine:
    """What the system says.

    `quota` in CPUs and `memory` in bytes are what the cgroups and the RAM leave us; None: no limit is known.
    `nodes`: each NUMA node whose memory we may use, and its bytes. `gpus`: those that CUDA shows us.
    """

    cpus: tuple[Cpu, ...]
    quota: float | None = None
    memory: int | None = None
    nodes: tuple[tuple[int, int], ...] = ()
    gpus: int = 0

    @property
    def cores(self) -> int:
        """Physical cores that we may use."""
        return len({cpu.core for cpu in self.cpus})


def read_machine(
    root: Path = Path("/"), affinity: Iterable[int] | None = None, environ: Mapping[str, str] | None = None
) -> Machine:
    """Look at this machine, or at a recorded one below `root`; `affinity` is ours when it is None."""
    allowed = sorted(os.sched_getaffinity(0) if affinity is None else affinity)
    limit = memory_limit(root)
    ram = _kilobytes(root / "proc/meminfo")
    return Machine(
        cpus=_cpus(root / "sys/devices/system", allowed),
        quota=cpu_quota(root),
        memory=min((each for each in (limit, ram) if each), default=None),
        nodes=_nodes(root),
        gpus=_gpus(root, os.environ if environ is None else environ),
    )


def parse_list(text: str) -> list[int]:
    """Return the numbers in a list of the kernel's, such as ``0-3,8,10-11``."""
    numbers: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _cpus(system: Path, allowed: list[int]) -> tuple[Cpu, ...]:
    node_of = {cpu: node for node, folder in _numbered(system / "node", "node") for cpu in _list(folder / "cpulist")}
    speeds = {cpu: _speed(system / f"cpu/cpu{cpu}") for cpu in allowed}
    fastest = max((speed for speed in speeds.values() if speed), default=None)
    twins: dict[int, Iterator[int]] = {}
    cpus = []
    for cpu in allowed:
        folder = system / f"cpu/cpu{cpu}"
        topology = folder / "topology"
        siblings = _list(topology / "core_cpus_list") or _list(topology / "thread_siblings_list") or [cpu]
        core = min(siblings)
        speed = speeds[cpu]
        cpus.append(
            Cpu(
                number=cpu,
                core=core,
                twin=next(twins.setdefault(core, count())),
                node=node_of.get(cpu, 0),
                cache=_last_cache(folder / "cache"),
                capacity=round(FULL_CAPACITY * speed / fastest) if speed and fastest else FULL_CAPACITY,
            )
        )
    return tuple(cpus)


def _last_cache(folder: Path) -> int:
    """Return the lowest CPU that shares the last level of cache, and so a number for it; 0 when nothing is known."""
    levels = {_number(each / "level") or 0: each for _, each in _numbered(folder, "index")}
    return min(_list(levels[max(levels)] / "shared_cpu_list"), default=0) if levels else 0


def _speed(folder: Path) -> int | None:
    """Return how fast a CPU is, in the kernel's measure (ARM, new x86) or else in kHz."""
    return _number(folder / "cpu_capacity") or _number(folder / "cpufreq/cpuinfo_max_freq")


def _nodes(root: Path) -> tuple[tuple[int, int], ...]:
    """Return the bytes of each NUMA node that has memory for us."""
    status = _text(root / "proc/self/status")
    allowed = re.search(r"^Mems_allowed_list:\s*(\S+)", status, re.MULTILINE)
    ours = set(parse_list(allowed[1])) if allowed else None
    return tuple(
        (node, size)
        for node, folder in _numbered(root / "sys/devices/system/node", "node")
        if (size := _kilobytes(folder / "meminfo")) and (ours is None or node in ours)
    )


def _gpus(root: Path, environ: Mapping[str, str]) -> int:
    """Count the GPUs that CUDA will show us."""
    listed = environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        visible = []
        for device in map(str.strip, listed.split(",")):
            if device in ("", "-1"):  # CUDA ignores what comes behind a device that there is not
                break
            visible.append(device)
        return len(visible)
    folder = root / "proc/driver/nvidia/gpus"
    if folder.is_dir():
        return sum(1 for _ in folder.iterdir())
    return sum(1 for _ in _numbered(root / "dev", "nvidia"))


def _numbered(folder: Path, prefix: str) -> list[tuple[int, Path]]:
    """Return what is named `prefix` and a number, by number."""
    found = ((re.fullmatch(rf"{prefix}(\d+)", path.name), path) for path in folder.glob(f"{prefix}[0-9]*"))
    return sorted((int(match[1]), path) for match, path in found if match)


def _kilobytes(meminfo: Path) -> int | None:
    """Return MemTotal in bytes."""
    total = re.search(r"MemTotal:\s*(\d+) kB", _text(meminfo))
    return int(total[1]) * 1024 if total else None


def _list(path: Path) -> list[int]:
    return parse_list(_text(path))


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
