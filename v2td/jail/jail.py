"""Which files a locked-in process may touch, and how it locks itself in."""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import v2td
from v2td.jail import landlock, syscalls

PR_SET_NO_NEW_PRIVS = 38

# What Python and the libraries read when they are loaded; nothing of it is secret.
SYSTEM_FOLDERS = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/sys/devices/system",
    "/sys/bus/pci/devices",
)
SYSTEM_FILES = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/vm/overcommit_memory",
    "/dev/urandom",
)
DEVICES = ("/dev/null",)  # written, too


@dataclass(frozen=True, slots=True)
class Means:
    """What this machine has to lock a process in with: the ABI of Landlock (0: none), and libseccomp."""

    landlock_abi: int
    seccomp: bool

    @property
    def missing(self) -> tuple[str, ...]:
        """What a jail here lacks, in words; empty when it is whole."""
        lacks = []
        if not self.seccomp:
            lacks.append("seccomp, against network and programs (install libseccomp2)")
        if not self.landlock_abi:
            lacks.append("Landlock, against reading other files (Linux 5.13 with lsm=landlock,…)")
        return tuple(lacks)


def means() -> Means:
    """Return what this machine has."""
    return Means(landlock.abi(), syscalls.library() is not None)


@dataclass(frozen=True, slots=True)
class Jail:
    """A process that enters reads files at or below `readable`, writes those below `writable`, and has no more.

    It makes and removes no files, has no network, starts no process, and sends no signal to another: as far as `means`
    go. What it has open when it enters stays open.
    """

    readable: tuple[Path, ...]
    writable: tuple[Path, ...]
    means: Means

    def enter(self) -> None:
        """Lock this process in; OSError when the kernel refuses what `means` promised.

        To be called before it has a second thread: Landlock would not hold for that.
        """
        threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208 (names are all that is wanted)
        if threads != 1:
            raise OSError(f"a process with {threads} threads cannot lock itself in")
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no_new_privs is refused")
        rules = syscalls.rules() if self.means.seccomp else None  # while libseccomp can still be found
        if self.means.landlock_abi:
            devices = tuple(map(Path, DEVICES))
            landlock.restrict(_libraries(), (*map(Path, SYSTEM_FILES), *self.readable), (*devices, *self.writable))
        if rules is not None:
            rules.load()


def _libraries() -> set[Path]:
    """Return the folders of Python, its packages and this one, and of the system's shared libraries."""
    python = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return {Path(each) for each in (*python, f"{sys.base_prefix}/lib", *SYSTEM_FOLDERS, *v2td.__path__)}
