"""What a slot's process does about its place before it loads the model: OpenMP's threads, and where memory comes from.

Its CPUs are its own already: `Child` pins it before anything else runs in it.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping

from v2td.engine.topology import SlotPlan

MPOL_BIND = 2
SYS_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237, "ppc64le": 261, "s390x": 270, "riscv64": 237}
MASK_BITS = 64 * 16  # the kernel's limit of nodes (MAX_NUMNODES of the big distributions)


def openmp(slot: SlotPlan) -> Mapping[str, str]:
    """Return the variables with which OpenMP's threads agree with the pinning (pure).

    One place: the CPUs of the slot, among which the kernel moves the threads. A place for each CPU would be slower
    by half and more whenever anything else, be it our own loop, takes one of them: the whole team waits at the end
    of each of the thousand small steps of decoding for the one thread that may not go elsewhere.
    """
    if not slot.cpus:
        return {"OMP_NUM_THREADS": str(slot.threads), "OMP_PROC_BIND": "false"}
    return {
        "OMP_NUM_THREADS": str(slot.threads),
        "OMP_PROC_BIND": "close",
        "OMP_PLACES": f"{{{','.join(map(str, slot.cpus))}}}",
    }


def take_place(slot: SlotPlan) -> bool:
    """Set OpenMP up and bind this process's memory to the slot's node; False when the kernel refuses that.

    Call it before ctranslate2 is imported: OpenMP reads its variables once, when it is loaded. Refusal (a
    container's seccomp profile, say) does no harm: a pinned process gets memory of its own node while there is some.
    """
    os.environ.update(openmp(slot))
    return slot.node is None or bind_memory(slot.node)


def bind_memory(node: int) -> bool:
    """Take all memory of this thread, and of those that it starts, from one NUMA node; False when refused.

    Bound, not preferred: with a preference the kernel would rather give memory of another node than take back a
    page of a file's cache, and the model would lie there as long as the process lives.
    """
    number = SYS_SET_MEMPOLICY.get(platform.machine())
    if number is None or not 0 <= node < MASK_BITS:
        return False
    words = [0] * (MASK_BITS // 64)
    words[node // 64] = 1 << (node % 64)
    mask = (ctypes.c_uint64 * len(words))(*words)
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    result: int = syscall(ctypes.c_long(number), ctypes.c_int(MPOL_BIND), mask, ctypes.c_ulong(MASK_BITS + 1))
    return result == 0
