"""How many slots, with how many threads, on which CPUs (pure); and the look at the machine that it decides from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from v2td.config import EngineSettings
from v2td.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Machine:
    """What the system says: physical cores as groups of their CPUs, and the cgroup's CPU quota (None: none)."""

    cores: tuple[tuple[int, ...], ...]
    quota: float | None


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """One slot: the CPUs it is pinned to and its threads."""

    cpus: tuple[int, ...]
    threads: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All slots, and in words why."""

    slots: tuple[SlotPlan, ...]
    reasons: tuple[str, ...]


def plan(machine: Machine, settings: EngineSettings) -> Plan:
    """One slot of one thread for each physical core but those left to the loop and the decoders.

    Two of eight cores are left, as the second seed does; one of four; none of two, where the kernel shares them
    better than we could. A second thread of a core brings nothing, its twin does the same arithmetic. ConfigError
    when engine.cpus names a CPU that is not there, or not for us.
    """
    allowed = {cpu for core in machine.cores for cpu in core}
    if forbidden := set(settings.cpus) - allowed:
        raise ConfigError(
            "engine.cpus",
            f"{list(settings.cpus)}",
            f"CPU {min(forbidden)} is not one of {sorted(allowed)}, which we may use",
        )
    cpus = settings.cpus or tuple(core[0] for core in machine.cores)
    available = len(cpus) if machine.quota is None else max(1, min(len(cpus), int(machine.quota)))
    reserved = 0 if settings.cpus else min(2, available // 4)
    threads = settings.threads or 1
    count = settings.slots or max(1, (available - reserved) // threads)
    slots = tuple(
        SlotPlan(tuple(dict.fromkeys(cpus[(slot * threads + each) % len(cpus)] for each in range(threads))), threads)
        for slot in range(count)
    )
    reasons = (
        f"{len(machine.cores)} physical cores may be used"
        + ("" if machine.quota is None else f", a quota of {machine.quota:g} CPUs"),
        f"{reserved} left to the loop and the decoders",
        f"{count} slots of {threads} "
        + ("thread" if threads == 1 else "threads")
        + (" (as set)" if settings.slots or settings.threads else ""),
    )
    return Plan(slots, reasons)


def read_machine(sys: Path = Path("/sys"), cpus: Sequence[int] | None = None) -> Machine:
    """Look at this machine: /sys, this process's affinity mask, its cgroup (v2)."""
    allowed = set(os.sched_getaffinity(0) if cpus is None else cpus)
    cores: dict[str, list[int]] = {}
    for cpu in sorted(allowed):
        siblings = sys / f"devices/system/cpu/cpu{cpu}/topology/core_cpus_list"
        cores.setdefault(siblings.read_text().strip() if siblings.exists() else str(cpu), []).append(cpu)
    return Machine(tuple(tuple(core) for core in cores.values()), _quota(sys))


def _quota(sys: Path) -> float | None:
    """Return the tightest cpu.max from this process's cgroup up to the root."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    group = next((line[3:].lstrip("/") for line in lines if line.startswith("0::")), None)
    if group is None:
        return None
    folder = sys / "fs/cgroup" / group
    quotas = []
    for each in (folder, *folder.parents):
        if (limit := each / "cpu.max").is_file():
            maximum, period = limit.read_text().split()
            if maximum != "max":
                quotas.append(int(maximum) / int(period))
    return min(quotas, default=None)
