"""How many slots, with how many threads, on which CPUs (pure): decided from what `machine` saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from math import inf

from v2td.config import EngineSettings
from v2td.engine.cpu_groups import Group, cpu_groups, is_whole, speed_class
from v2td.errors import ConfigError
from v2td.machine import Cpu, Machine

PARALLEL = 0.75  # of the work that threads share: two are 1.6 times as fast as one (1.8 at encoding, less at decoding)
THREADS_MAX = 16  # of a slot, unless set by hand: beyond, the part that they do not share is what counts
GPU_THREADS = 4  # of a slot whose model is on a GPU: they make features and tokens only
OWN_BYTES = 512 << 20  # for the loop, a decoder and what they hold
MODEL_SHARE = 0.8  # of the rest is for models; what remains holds PCM and downloads
SHARED_NICE = 5  # of slots that share their CPUs with the loop


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """One slot: the CPUs it is pinned to (empty: not pinned), its threads, the node of its memory, its GPU.

    `node` is None where memory comes from wherever there is some. `nice` is that of its process.
    """

    cpus: tuple[int, ...]
    threads: int
    node: int | None = None
    device_index: int = 0
    nice: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """All slots, and in words why."""

    slots: tuple[SlotPlan, ...]
    reasons: tuple[str, ...]


def plan(machine: Machine, settings: EngineSettings, model_bytes: int | None = None) -> Plan:
    """Return the slots for this machine; `model_bytes` is what one copy of the model takes, None: no bound.

    One slot of one thread for each physical core but those of `reserved_cores`: processes of one thread do more
    than threads of one process. Where memory holds fewer copies than that, fewer slots get more threads: as many
    as do the most work together. The second hyperthread of a core brings next to nothing, it does the same
    arithmetic in the same units: only slots set by hand use it, when there are no cores left. Under a CPU quota
    below the number of cores nothing is pinned: whoever shares the machine with us may have chosen the same CPUs.
    What is set by hand is taken, whatever memory says.

    ConfigError when engine.cpus names a CPU that is not ours, or engine.reserved_cpus leaves none.
    """
    cpus = _cpus(machine, settings)
    cores = sum(cpu.twin == 0 for cpu in cpus)
    available = cores if machine.quota is None else max(1, min(cores, int(machine.quota)))
    reserved = _reserved(available, settings)
    nice = 0 if reserved else SHARED_NICE
    if settings.device == "cuda":
        slots = _on_gpus(machine, settings, cpus, available - reserved)
        reasons = [f"{_counted(machine.gpus, 'GPU')} to be seen, a slot for each"]
    else:
        slots = _on_cpus(machine, settings, model_bytes, cpus, available - reserved)
        reasons = _memory_in_words(machine, model_bytes, len(slots))
    slots = [replace(slot, nice=nice) for slot in slots]
    reasons += [_slots_in_words(slots, settings)]
    if available < cores and not settings.cpus:
        slots = [replace(slot, cpus=(), node=None) for slot in slots]
        reasons += ["not pinned, since the quota shares these CPUs with others; engine.cpus pins"]
    left = f"{reserved} left to the loop and the decoders" + (" (as set)" if settings.reserved_cpus is not None else "")
    return Plan(tuple(slots), (_machine_in_words(machine, settings), left, *reasons))


def refit(planned: Plan, machine: Machine, settings: EngineSettings, measured_bytes: int) -> Plan:
    """Return `planned` itself when its copies fit with the size that was measured, else a plan whose copies do.

    For the engine when its first slot has loaded: in a new plan that slot's threads and CPUs may be others, too.
    """
    better = plan(machine, settings, measured_bytes)
    return better if len(better.slots) < len(planned.slots) else planned


def reserved_cores(available: int) -> int:
    """Return how many cores are left to the loop and the decoders.

    None of one to three: a core would be a third of the machine or more, while the loop needs a few percent of one.
    The slots are niced there, so the kernel lets the loop go first when it has something to do, and decoders that
    come too short catch up as soon as a slot waits for them. One of four, two of eight as the second seed does,
    and one of eight from 24 on: decoding and voice detection take about a tenth of what the base model takes, so
    two cores could not feed a hundred slots.
    """
    return max(min(2, available // 4), available // 8)


def speedup(threads: int) -> float:
    """Return how many times faster than one thread a slot of so many is (Amdahl's law)."""
    return 1 / (1 - PARALLEL + PARALLEL / threads)


def _cpus(machine: Machine, settings: EngineSettings) -> Sequence[Cpu]:
    """Return the CPUs for slots; those set by hand all count as cores."""
    if not settings.cpus:
        return machine.cpus
    ours = {cpu.number: replace(cpu, twin=0) for cpu in machine.cpus}
    if forbidden := set(settings.cpus) - set(ours):
        raise ConfigError(
            "engine.cpus",
            f"{list(settings.cpus)}",
            f"CPU {min(forbidden)} is not one of {sorted(ours)}, which we may use",
        )
    return [ours[number] for number in dict.fromkeys(settings.cpus)]


def _reserved(available: int, settings: EngineSettings) -> int:
    if settings.reserved_cpus is None:
        return 0 if settings.cpus else reserved_cores(available)
    if settings.reserved_cpus >= available:
        raise ConfigError(
            "engine.reserved_cpus",
            str(settings.reserved_cpus),
            f"leave the slots at least one of the {_counted(available, 'core')} that we may use",
        )
    return settings.reserved_cpus


def _on_cpus(
    machine: Machine, settings: EngineSettings, model_bytes: int | None, cpus: Sequence[Cpu], usable: int
) -> list[SlotPlan]:
    copies = _room(machine, model_bytes)
    nodes = _nodes(machine, model_bytes)

    def fitting(threads: int) -> list[Group]:
        """Return the CPUs of the slots that there is room for, with so many threads each."""
        whole = [group for group in cpu_groups(cpus, threads) if is_whole(group)]
        most = usable // threads
        if settings.slots or copies is None:  # memory does not bound what is set by hand
            return whole[:most]
        return _near_memory(whole, nodes)[: min(most, max(1, copies))]

    def work(threads: int) -> float:
        """Return how much the slots do together, in any unit; 0 when as many as are set by hand do not fit."""
        groups = fitting(threads)
        if len(groups) < settings.slots:
            return 0.0
        return speedup(threads) * sum(min(map(speed_class, group)) for group in groups[: settings.slots or None])

    threads = settings.threads or max(range(1, min(usable, THREADS_MAX) + 1), key=work)
    groups = fitting(threads)
    count = settings.slots or max(1, len(groups))
    if count > len(groups):  # set by hand: other nodes and hyperthreads too, and then the same CPUs again
        groups = cpu_groups(cpus, threads)
    return [_slot(group, threads, nodes) for group in islice(cycle(groups), count)]


def _slot(group: Group, threads: int, nodes: Mapping[int, float]) -> SlotPlan:
    """Return the slot on these CPUs; its memory is bound where a node has all of them and room for the model."""
    node = group[0].node if len({cpu.node for cpu in group}) == 1 else None
    return SlotPlan(tuple(cpu.number for cpu in group), threads, node if node in nodes else None)


def _on_gpus(machine: Machine, settings: EngineSettings, cpus: Sequence[Cpu], usable: int) -> list[SlotPlan]:
    """Return a slot for each GPU, with its share of the CPUs as far as one node has them."""
    gpus = max(1, machine.gpus)  # a GPU that cannot be counted may be there all the same: loading the model tells
    count = settings.slots or gpus
    widest = max(Counter(cpu.node for cpu in cpus if cpu.twin == 0).values())
    share = max(1, min(usable // count, widest))
    threads = settings.threads or min(GPU_THREADS, share)
    return [
        SlotPlan(tuple(cpu.number for cpu in group), threads, device_index=number % gpus)
        for number, group in enumerate(islice(cycle(cpu_groups(cpus, share)), count))
    ]


def _room(machine: Machine, model_bytes: int | None) -> int | None:
    """Return how many copies of the model memory holds; None when that is not known."""
    if model_bytes is None or machine.memory is None:
        return None
    return max(0, int((machine.memory - OWN_BYTES) * MODEL_SHARE / model_bytes))


def _nodes(machine: Machine, model_bytes: int | None) -> dict[int, float]:
    """Return how many copies of the model each NUMA node holds, where there are several nodes that hold any."""
    if len(machine.nodes) < 2:
        return {}
    rooms = {node: inf if model_bytes is None else size * MODEL_SHARE // model_bytes for node, size in machine.nodes}
    return {node: room for node, room in rooms.items() if room}


def _near_memory(groups: Sequence[Group], nodes: Mapping[int, float]) -> list[Group]:
    """Leave out the groups for whose model their node has no room any more."""
    taken: Counter[int] = Counter()
    chosen = []
    for group in groups:
        node = group[0].node
        taken[node] += 1
        if taken[node] <= nodes.get(node, inf):
            chosen.append(group)
    return chosen


def _machine_in_words(machine: Machine, settings: EngineSettings) -> str:
    said = f"{_counted(machine.cores, 'physical core')} may be used"
    if (nodes := len({cpu.node for cpu in machine.cpus})) > 1:
        said += f", on {nodes} NUMA nodes"
    if machine.quota is not None:
        said += f", with a quota of {machine.quota:g} CPUs"
    if settings.cpus:
        said += f"; CPUs {', '.join(map(str, settings.cpus))} are set"
    return said


def _memory_in_words(machine: Machine, model_bytes: int | None, slots: int) -> list[str]:
    copies = _room(machine, model_bytes)
    if copies is None or model_bytes is None or machine.memory is None:
        return []
    said = f"a copy of the model takes up to {_gibibytes(model_bytes)}, {_gibibytes(machine.memory)} hold {copies}"
    if slots > copies:
        said += ": that may be too few; a smaller model or fewer engine.batch_windows take less"
    return [said]


def _slots_in_words(slots: Sequence[SlotPlan], settings: EngineSettings) -> str:
    said = f"{_counted(len(slots), 'slot')} of {_counted(slots[0].threads, 'thread')}"
    return said + (" (as set)" if settings.slots or settings.threads else "")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _gibibytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
