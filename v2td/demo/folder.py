"""The one folder that a demo writes to: temporary, locked while its demo lives, removed with it."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from v2td.errors import ServiceError

PREFIX = "v2td-demo-"
SWEEPER = Path(__file__).with_name("sweeper.py")
LONGEST_PARENT = 60  # characters: the path of a Unix socket below has to fit into 107


@contextmanager
def demo_folder() -> Iterator[Path]:
    """A fresh folder of ours alone; through root's, other users may pass, for its Postgres is one, but not list it.

    It is removed on exit, and by a sweeper when this process is killed. What even that has left (the machine went
    down) is removed on entry: its lock died with it.
    """
    parent = _parent()
    for stale in parent.glob(PREFIX + "*"):
        _sweep(stale)
    folder, lock = _claim(parent)
    with _sweeper(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


@contextmanager
def _sweeper(folder: Path) -> Iterator[None]:
    # In a session of its own: what ends us, a Ctrl-C or a terminal that is closed, is not for it.
    command = [sys.executable, "-I", "-S", str(SWEEPER), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        try:
            yield
        finally:
            process.communicate()  # closes its standard input, and waits


def _parent() -> Path:
    """The temporary folder, unless root's Postgres cannot get there or its path is too long."""
    for parent in (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")):  # noqa: S108 (mkdtemp goes below)
        found = parent.resolve()
        passable = os.geteuid() != 0 or all(part.stat().st_mode & stat.S_IXOTH for part in (found, *found.parents))
        if passable and len(str(found)) <= LONGEST_PARENT and os.access(found, os.W_OK | os.X_OK):
            return found
    raise ServiceError(
        "find a temporary folder", f"{tempfile.gettempdir()} and /tmp will not do", "set TMPDIR to a short, open path"
    )


def _claim(parent: Path) -> tuple[Path, int]:
    """A new folder and the descriptor that locks it; another demo may sweep it between the two, so look again."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            if os.geteuid() == 0:
                folder.chmod(0o711)
            return folder, lock
        os.close(lock)


def _sweep(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # gone meanwhile, or somebody else's
        return
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:  # its demo lives
        pass
    finally:
        os.close(descriptor)
