"""Landlock: a process gives up the file system but for what it names, TCP, and signals to others (landlock(7)).

Through ctypes, for neither glibc nor Python knows the three system calls, whose numbers are the same on every
architecture. A kernel that does not have it, or was started without it, has ABI 0.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
GET_VERSION = 1  # a flag of CREATE_RULESET
PATH_BENEATH = 1  # a kind of rule

WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
# The file accesses that each ABI can forbid; since ABI 5 all of them: 0xffff.
FILE_ACCESSES = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}
ALL_FILE_ACCESSES = 0xFFFF
TCP_ABI, TCP = 4, 0b11  # bind, connect
SCOPE_ABI, SCOPES = 6, 0b11  # abstract Unix sockets, signals

_libc = ctypes.CDLL(None, use_errno=True)


class _RulesetAttr(ctypes.Structure):
    """What is forbidden unless a rule allows it; older kernels take it too, as long as what they lack is zero."""

    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def abi() -> int:
    """Return the version of Landlock that the kernel offers, 0 for none."""
    return max(0, int(_libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), GET_VERSION)))


def restrict(lists: Iterable[Path], reads: Iterable[Path], writes: Iterable[Path]) -> None:
    """Give up all files but those at or below these paths, all TCP, and signals to other processes.

    Below `lists` folders may be listed and files read, below `reads` files be read, below `writes` files be read and
    written, if they exist: nothing can be made or removed, and nothing be executed. Paths that do not exist are left
    out. It holds for this thread, and for all threads and processes that it starts. Needs no_new_privs. OSError when
    the kernel refuses.
    """
    version = abi()
    forbidden = FILE_ACCESSES.get(version, ALL_FILE_ACCESSES)
    attr = _RulesetAttr(forbidden, TCP if version >= TCP_ABI else 0, SCOPES if version >= SCOPE_ABI else 0)
    with _descriptor(_call(CREATE_RULESET, ctypes.byref(attr), ctypes.c_size_t(ctypes.sizeof(attr)), 0)) as ruleset:
        for paths, access in (
            (lists, READ_FILE | READ_DIR),
            (reads, READ_FILE),
            (writes, READ_FILE | WRITE_FILE),
        ):
            for path in paths:
                _allow(ruleset, path, access)
        _call(RESTRICT_SELF, ruleset, 0)


def _allow(ruleset: int, path: Path, access: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # it is not there, or not for us: then there is nothing to allow
        return
    with _descriptor(opened) as parent:
        if not path.is_dir():
            access &= ~READ_DIR
        _call(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(_PathBeneathAttr(access, parent)), 0)


def _call(number: int, *args: object) -> int:
    result = int(_libc.syscall(number, *args))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {os.strerror(code)}")
    return result


@contextmanager
def _descriptor(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
