"""What a demo could leave behind, looked at from outside."""

from __future__ import annotations

import grp
import pwd
import time
from pathlib import Path

import psutil

from tests.living import lives


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process that names the folder in its command line, or descends from one that does."""
    found = [process for process in psutil.process_iter() if _names(process, str(folder))]
    for process in tuple(found):
        try:
            found += process.children(recursive=True)
        except psutil.NoSuchProcess:
            continue
    return list(set(found))


def _names(process: psutil.Process, text: str) -> bool:
    try:
        arguments = process.cmdline()
        # The sweeper outlives its demo by a moment, on purpose; whether it did its work is seen by the folder.
        return any(text in each for each in arguments) and not any("sweeper.py" in each for each in arguments)
    except psutil.Error:
        return False


def wait_until_gone(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those still alive after so long; ours to reap or not, a zombie is none."""
    deadline = time.monotonic() + seconds
    while True:
        alive = [process for process in processes if lives(process)]
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.05)


def is_removed(folder: Path, seconds: float) -> bool:
    """Whether the folder goes within so long."""
    deadline = time.monotonic() + seconds
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not folder.exists()


def system_state(folder: Path) -> dict[str, object]:
    """Users, groups, and the modes and owners of a folder's ancestors."""
    ancestors = {str(part): (part.stat().st_mode, part.stat().st_uid, part.stat().st_gid) for part in folder.parents}
    return {
        "passwd": Path("/etc/passwd").read_bytes(),
        "group": Path("/etc/group").read_bytes(),
        "users": pwd.getpwall(),
        "groups": grp.getgrall(),
        "ancestors": ancestors,
    }


def shared_memory_of(pids: set[int]) -> list[str]:
    """System V segments that one of the processes made, as lines of /proc/sysvipc/shm."""
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return [line for line in lines if int(line.split()[4]) in pids]


def shared_memory_files(pids: set[int]) -> set[Path]:
    """The files of /dev/shm that one of the processes has in its memory and that still have a name there."""
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in pids if psutil.pid_exists(pid)]
    names = {line.split(maxsplit=5)[5] for text in maps for line in text.splitlines() if " /dev/shm/" in line}
    return {path for name in names if (path := Path(name)).exists()}
