"""Recorded machines: tests/engine/machines/*.toml, from which trees of /sys and /proc are written again."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from v2td.machine import Machine, parse_list, read_machine

FOLDER = Path(__file__).parent / "machines"
NAMES = sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_recorded(name: str, root: Path, *, environ: Mapping[str, str] = {}) -> Machine:
    """Write the tree of a recorded machine below `root`, and look at it."""
    recorded = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    write_tree(recorded, root)
    return read_machine(root, parse_list(recorded["affinity"]), environ)


def write_tree(recorded: Mapping[str, Any], root: Path) -> None:
    files: dict[str, object] = {path: text.lstrip("\n") for path, text in recorded.get("files", {}).items()}
    cpu = "sys/devices/system/cpu/cpu{}"
    for siblings in recorded["cores"]:
        files |= {f"{cpu.format(each)}/topology/core_cpus_list": siblings for each in parse_list(siblings)}
    for index, (level, shared) in enumerate(recorded.get("caches", {}).items()):
        for cpus in shared:
            for each in parse_list(cpus):
                folder = f"{cpu.format(each)}/cache/index{index}"
                files |= {f"{folder}/level": level, f"{folder}/shared_cpu_list": cpus}
    for table, name in (("capacity", "cpu_capacity"), ("max_khz", "cpufreq/cpuinfo_max_freq")):
        for cpus, value in recorded.get(table, {}).items():
            files |= {f"{cpu.format(each)}/{name}": value for each in parse_list(cpus)}
    for node, has in recorded.get("nodes", {}).items():
        folder = f"sys/devices/system/node/node{node}"
        files |= {
            f"{folder}/cpulist": has["cpus"],
            f"{folder}/meminfo": f"Node {node} MemTotal:       {has['kilobytes']} kB",
        }
    for path, content in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}".rstrip("\n") + "\n")
