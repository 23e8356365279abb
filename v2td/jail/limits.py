"""What a process may use up; the kernel holds it to that (getrlimit(2))."""

from __future__ import annotations

import math
import resource
import time
from pathlib import Path

# What RLIMIT_CPU goes by: this process's ticks, (~0 << 3) | CPUCLOCK_PROF in <linux/posix-timers.h>. They may be some
# 20 % ahead of getrusage(), which corrects them.
TICKS_USED = -8


def limit_process(*, memory_bytes: int, files: int, file_bytes: int) -> None:
    """Limit this process for good; nothing is raised that is limited already.

    `memory_bytes` are those that it may map beyond what it has now, its libraries; a MemoryError ends the try. `files`
    may be open at once, none may be longer than `file_bytes`, and no core file is written: it would hold what was said.
    """
    mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    for kind, value in (
        (resource.RLIMIT_AS, mapped + memory_bytes),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        lowest = _no_higher(kind, value)
        resource.setrlimit(kind, (lowest, lowest))


def limit_cpu(seconds: float) -> None:
    """Have the kernel end this process (SIGXCPU) when all its threads together take so many CPU seconds from now on.

    A process that lives long calls it again before each piece of work, for RLIMIT_CPU counts from its start.
    """
    until = _no_higher(resource.RLIMIT_CPU, math.ceil(time.clock_gettime(TICKS_USED) + seconds))
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _no_higher(kind: int, value: int) -> int:
    hard = resource.getrlimit(kind)[1]
    return value if hard == resource.RLIM_INFINITY else min(value, hard)
