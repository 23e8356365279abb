"""Tries what a locked-in process must not be able to do; runs inside."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path


def _connects(_outside: Path) -> None:
    with socket.socket() as tcp:
        tcp.connect(("127.0.0.1", 1))


def _sends(_outside: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect(("127.0.0.1", 1))  # nobody has to answer


def _connects_locally(_outside: Path) -> None:
    for each in socket.socketpair():
        each.close()


def _runs_a_program(_outside: Path) -> None:
    subprocess.run(["/bin/true"], check=True)


def _forks(_outside: Path) -> None:
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _reads(outside: Path) -> None:
    outside.read_bytes()


def _writes(outside: Path) -> None:
    with outside.open("ab"):
        pass


def _makes(outside: Path) -> None:
    made = outside.with_name(f"{outside.name}.made")
    made.touch(exist_ok=False)
    made.unlink()


def _removes(outside: Path) -> None:
    outside.rename(outside.with_name(f"{outside.name}.moved"))


def _lists(outside: Path) -> None:
    os.listdir(outside.parent)  # noqa: PTH208 (nothing is done with it)


def _opens_to_all(outside: Path) -> None:
    outside.chmod(0o777)


def _signals_its_parent(_outside: Path) -> None:
    os.kill(os.getppid(), signal.SIGCONT)  # which does no harm


def _slows_its_parent_down(_outside: Path) -> None:
    parent = os.getppid()
    os.sched_setaffinity(parent, os.sched_getaffinity(parent))  # to what it is already


def _reads_its_parents_secrets(_outside: Path) -> None:
    Path(f"/proc/{os.getppid()}/environ").read_bytes()


def _reaches_into_its_parent(_outside: Path) -> None:
    os.close(os.pidfd_open(os.getppid()))  # the first step to its descriptors


ATTEMPTS: dict[str, Callable[[Path], None]] = {
    "connect over TCP": _connects,
    "send over UDP": _sends,
    "open a Unix socket": _connects_locally,
    "run a program": _runs_a_program,
    "start a process": _forks,
    "read a file": _reads,
    "write a file": _writes,
    "make a file": _makes,
    "remove a file": _removes,
    "list a folder": _lists,
    "change a file's mode": _opens_to_all,
    "signal its parent": _signals_its_parent,
    "slow its parent down": _slows_its_parent_down,
    "read its parent's environment": _reads_its_parents_secrets,
    "reach into its parent": _reaches_into_its_parent,
}


def breaches(outside: Path) -> tuple[str, ...]:
    """Return what of ATTEMPTS succeeded in this process; `outside` is a file that no jail here lets it touch."""
    return tuple(name for name, attempt in ATTEMPTS.items() if _succeeds(attempt, outside))


def _succeeds(attempt: Callable[[Path], None], outside: Path) -> bool:
    try:
        attempt(outside)
    except OSError as error:  # "connection refused", and whatever else there is, says that nobody here forbade it
        return error.errno not in (errno.EPERM, errno.EACCES, errno.ENOSYS)
    return True
