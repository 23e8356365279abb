"""`v2td check --host`: which of the recommendations for a machine this one meets. None of them is needed to work."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from v2td.config import Settings

PROC = Path("/proc")
SYS = Path("/sys")

# What systemd/99-v2td.conf sets, where it is explained.
SYSCTL = {
    "net.core.rmem_max": "134217728",
    "net.core.wmem_max": "134217728",
    "net.ipv4.tcp_rmem": "4096 87380 134217728",
    "net.ipv4.tcp_wmem": "4096 65536 134217728",
    "net.ipv4.tcp_congestion_control": "bbr",
}
OPEN_FILES = 65536  # LimitNOFILE= of the unit
SECONDS_PREPARED = 2 * 3600  # of audio: what one long recording takes, and a usual mix of shorter ones
PCM_BYTES = 32_000  # a second, mono


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What is recommended and what was found; `how` brings it, `why` says what for."""

    name: str
    met: bool
    found: str
    recommended: str
    how: str
    why: str


def recommendations(settings: Settings, proc: Path = PROC, sys: Path = SYS) -> list[Recommendation]:
    """Look at this machine, or at a recorded one in `proc` and `sys`; blocks for milliseconds."""
    return [*_network(proc), *_cpus(sys), *_memory(settings, proc, sys), *_cgroups(sys), *_limits()]


def _network(proc: Path) -> Iterator[Recommendation]:
    for key, wanted in SYSCTL.items():
        found = _read(proc / "sys" / key.replace(".", "/"))
        yield Recommendation(
            key,
            _reaches(found, wanted),
            found or "unknown",
            wanted,
            "install systemd/99-v2td.conf into /etc/sysctl.d and run: sysctl --system",
            "downloads over long distances; without effect within a data centre",
        )


def _reaches(found: str, wanted: str) -> bool:
    """Whether the largest buffer is as large, or the word is the same."""
    last = found.split()[-1:] or [""]
    goal = wanted.rsplit(maxsplit=1)[-1]
    return int(last[0]) >= int(goal) if last[0].isdecimal() and goal.isdecimal() else last[0] == goal


def _cpus(sys: Path) -> Iterator[Recommendation]:
    governors = {_read(path) for path in sys.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")} - {""}
    if governors:  # a virtual machine has none
        yield Recommendation(
            "CPU governor",
            governors == {"performance"},
            ", ".join(sorted(governors)),
            "performance",
            "cpupower frequency-set -g performance",
            "slots are busy in bursts, and a governor that follows the load is late for each",
        )


def _memory(settings: Settings, proc: Path, sys: Path) -> Iterator[Recommendation]:
    modes = _read(sys / "kernel/mm/transparent_hugepage/enabled")
    mode = modes.partition("[")[2].partition("]")[0] or "unknown"
    yield Recommendation(
        "transparent huge pages",
        mode in ("madvise", "always"),
        mode,
        "madvise or always",
        "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        "weights are read from end to end for each batch: fewer page-table walks",
    )
    swappiness = _read(proc / "sys/vm/swappiness")
    swaps = len(_read(proc / "swaps").splitlines()) > 1
    yield Recommendation(
        "swap",
        not swaps or (swappiness.isdecimal() and int(swappiness) <= 10),
        f"vm.swappiness {swappiness or 'unknown'}" if swaps else "none",
        "none, or vm.swappiness at most 10",
        "sysctl vm.swappiness=10, or MemorySwapMax=0, which v2td.slice has",
        "a weight that was swapped out is read back for each batch",
    )
    folder = settings.speech.pcm_dir
    free = _free_bytes(folder)
    wanted = SECONDS_PREPARED * PCM_BYTES
    yield Recommendation(
        "room for decoded audio",
        free is not None and free >= wanted,
        "there is no such folder" if free is None else f"{free / 1e6:.0f} MB free in {folder}",
        f"{wanted / 1e6:.0f} MB: {SECONDS_PREPARED // 3600} hours of audio",
        "mount -o remount,size=50% /dev/shm, or another speech.pcm_dir",
        "jobs wait for room when it is full",
    )


def _cgroups(sys: Path) -> Iterator[Recommendation]:
    controllers = _read(sys / "fs/cgroup/cgroup.controllers").split()
    yield Recommendation(
        "cgroup v2",
        {"cpu", "memory"} <= set(controllers),
        "with " + ", ".join(controllers) if controllers else "version 1",
        "with cpu and memory",
        "boot with systemd.unified_cgroup_hierarchy=1",
        "v2td.slice bounds nothing without it",
    )


def _limits() -> Iterator[Recommendation]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    yield Recommendation(
        "open files",
        hard == resource.RLIM_INFINITY or hard >= OPEN_FILES,
        "unlimited" if hard == resource.RLIM_INFINITY else str(hard),
        str(OPEN_FILES),
        "the unit sets it; elsewhere: ulimit -n",
        "each download, slot and connection takes some",
    )


def _free_bytes(folder: Path) -> int | None:
    try:
        status = os.statvfs(folder)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def _read(path: Path) -> str:
    """Return what a file says, its blanks evened out; nothing when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return ""
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())
