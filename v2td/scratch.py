"""Folders for what lives no longer than a process, such as downloads and PCM; swept when their owner was killed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

# What passes: others that end make room, and somebody mounts a disk again that the kernel made read-only.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


def can_never_fit(folder: Path, size_bytes: int) -> bool:
    """Whether a file that has grown so large takes more than half of its file system: no waiting makes room for it."""
    status = os.statvfs(folder)
    read_only = bool(status.f_flag & os.ST_RDONLY)  # says nothing about room
    return not read_only and size_bytes > status.f_blocks * status.f_frsize / 2


class Remover:
    """Deletes files; what cannot be deleted now, on a disk that is read-only, goes with the next that can."""

    def __init__(self) -> None:
        self._left: set[Path] = set()

    def remove(self, path: Path) -> None:
        """Delete a file; nothing when it is gone already."""
        self._left.add(path)
        for each in tuple(self._left):
            with contextlib.suppress(OSError):
                each.unlink(missing_ok=True)
                self._left.discard(each)


@contextlib.contextmanager
def scratch_folder(base: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder (0700) below `base` whose name begins with `prefix`; it is removed at the end.

    Several processes may share `base`: each holds a lock on its folder, and each first removes the folders of this
    prefix that nobody holds, which killed ones left behind. Raises OSError when the folder cannot be made.
    """
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_stale(base, prefix)
    folder, descriptor = _make_locked(base, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _make_locked(base: Path, prefix: str) -> tuple[Path, int]:
    """Make a folder and lock it; another process that starts may take it for stale in between, then make another."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
        try:
            descriptor = _open_directory(folder)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if folder.exists():
            return folder, descriptor
        os.close(descriptor)


def _remove_stale(base: Path, prefix: str) -> None:
    for folder in base.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # somebody else's, held, or just removed by another process
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                continue
            descriptor = _open_directory(folder)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)


def _open_directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
