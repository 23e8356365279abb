"""CPUs in groups of one size that lie close together (pure): one group for each slot."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

from v2td.machine import FULL_CAPACITY, Cpu

Group = tuple[Cpu, ...]

# What the CPUs of a group have in common: as much as can be.
COMMON: tuple[Callable[[Cpu], Hashable], ...] = (
    lambda cpu: (cpu.twin, cpu.node, cpu.cache, speed_class(cpu)),
    lambda cpu: (cpu.twin, cpu.node),
    lambda cpu: cpu.twin,
    lambda _cpu: None,
)


def speed_class(cpu: Cpu) -> int:
    """Return quarters of the fastest CPU's speed: the cores that boost a little higher are no other kind of core."""
    return round(4 * cpu.capacity / FULL_CAPACITY)


def is_whole(group: Group) -> bool:
    """Whether the CPUs are physical cores of one NUMA node."""
    return len({cpu.node for cpu in group}) == 1 and all(cpu.twin == 0 for cpu in group)


def cpu_groups(cpus: Iterable[Cpu], size: int) -> list[Group]:
    """Return disjoint groups of `size` CPUs, best first; all CPUs as one group when there are not enough for one.

    A group lies within one last-level cache and one kind of core, else within a NUMA node, else across nodes. Good
    ones come first (physical cores, fast ones), and among equals those of other nodes and caches in turn: few slots
    then have much memory bandwidth and cache each.
    """
    left = sorted(cpus, key=lambda cpu: -speed_class(cpu))
    groups: list[Group] = []
    for common in COMMON:
        alike: dict[Hashable, list[Cpu]] = defaultdict(list)
        for cpu in left:
            alike[common(cpu)].append(cpu)
        left = []
        for members in alike.values():
            end = len(members) - len(members) % size
            groups += [tuple(members[start : start + size]) for start in range(0, end, size)]
            left += members[end:]
    if not groups:
        return [tuple(left)]
    by_cache = _in_turn(groups, lambda group: (group[0].node, group[0].cache))
    return _in_turn(by_cache, lambda group: group[0].node)


def _in_turn(groups: Sequence[Group], place: Callable[[Group], Hashable]) -> list[Group]:
    """Sort by quality, and among equals the first of each place, then the second of each, and so on."""
    turns: Counter[Hashable] = Counter()
    ranked = []
    for group in groups:
        here = (_quality(group), place(group))
        ranked.append((_quality(group), turns[here], group))
        turns[here] += 1
    return [group for *_, group in sorted(ranked, key=lambda each: each[:2])]


def _quality(group: Group) -> tuple[int, int, int, int]:
    """Lower is better."""
    return (
        max(cpu.twin for cpu in group),
        len({cpu.node for cpu in group}),
        -min(map(speed_class, group)),
        len({cpu.cache for cpu in group}),
    )
