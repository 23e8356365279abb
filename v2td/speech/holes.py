"""Holes in files: memory of a tmpfs that is given back while the file goes on being used."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

KEEP_SIZE = 0x01  # <linux/falloc.h>
PUNCH_HOLE = 0x02

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def punch_hole(path: Path, start: int, end: int) -> bool:
    """Give back what the bytes [start, end) of a file take; they read as zeros from now on, the size stays.

    False, and nothing has happened, where the file system cannot do that.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return bool(_libc.fallocate(descriptor, PUNCH_HOLE | KEEP_SIZE, start, end - start) == 0)
    finally:
        os.close(descriptor)
