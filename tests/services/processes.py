"""Processes that outlive the command that started them, and are stopped only if they are still the same ones.

A process is known by its pid *and* its start time (clock ticks after boot, field 22 of /proc/PID/stat): a pid alone
may have been given to somebody else since.
"""

import asyncio
import os
import random
import select
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.living import freeze
from tests.services.errors import ServiceError

# Below Linux's default range of ephemeral ports (32768 and up), so that no outgoing connection can take the port of a
# server between the choice and the bind, or while a test has the server down.
_PORTS = range(20_000, 32_000)
_PROBE_PAUSE_SECONDS = 0.1
_LOG_TAIL_LINES = 30

# Returns when the server asked answers, raises when it does not.
Probe = Callable[[], Awaitable[object]]

# A Popen that is collected before its process has ended warns; these are kept until this interpreter ends.
_children: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class Process:
    """A process we started: ``started`` in clock ticks after boot, ``stop_signal`` asks it to end in good order."""

    name: str
    pid: int
    started: int
    stop_signal: int = signal.SIGTERM


@dataclass(frozen=True, slots=True)
class Account:
    """The user that a server runs as; None where a function takes one means: as ourselves."""

    name: str
    uid: int
    gid: int


def start_time(pid: int) -> int | None:
    """Clock ticks after boot at which ``pid`` started; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field, the name in brackets, may itself hold spaces and brackets.
    return int(stat.rpartition(")")[2].split()[19])


def this_process() -> Process:
    """The running interpreter itself, as the owner of what it starts."""
    started = start_time(os.getpid())
    if started is None:
        raise ServiceError("the test services need Linux's /proc")
    return Process("owner", os.getpid(), started)


def alive(process: Process) -> bool:
    """Whether ``process`` still exists, and is not another one with its pid; a zombie does not count."""
    fd = _pidfd(process)
    if fd is None:
        return False
    try:
        return not _ended(fd, timeout_seconds=0)
    finally:
        os.close(fd)


def spawn(
    name: str,
    command: Sequence[str | Path],
    *,
    log: Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    account: Account | None = None,
    stop_signal: int = signal.SIGTERM,
) -> Process:
    """Starts ``command`` in a session of its own, with stdout and stderr appended to ``log``.

    ``env`` is added to our own environment.  Raises OSError when the program is not there.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    _children.append(child)
    started = start_time(child.pid)
    if started is None:
        raise ServiceError(f"{name} ended at once; see {log}")
    return Process(name, child.pid, started, stop_signal)


def stop(process: Process, *, grace_seconds: float = 10.0) -> bool:
    """Asks ``process`` to end and kills it when it has not within ``grace_seconds``; blocks until it is gone.

    Returns False, without sending anything, when the process is gone already or its pid now belongs to another one.
    """
    return kill(process, process.stop_signal, grace_seconds=grace_seconds)


def kill(process: Process, first: int = signal.SIGKILL, *, grace_seconds: float = 10.0) -> bool:
    """As ``stop``, but begins with the signal ``first``."""
    fd = _pidfd(process)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, first)
        if not _ended(fd, grace_seconds):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            _ended(fd, grace_seconds)
    except ProcessLookupError:
        return False  # it ended between the look and the signal
    finally:
        os.close(fd)
    _reap(process.pid)
    return True


def free_ports(count: int) -> list[int]:
    """``count`` different TCP ports of 127.0.0.1 that nobody listens on now."""
    ports: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as candidate:
            # As the servers themselves do: a port is free even if old connections to it linger in TIME_WAIT.
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise ServiceError(f"no {count} free ports between {_PORTS.start} and {_PORTS.stop}")


async def until_answers(process: Process, probe: Probe, *, log: Path, timeout_seconds: float) -> None:
    """Calls ``probe`` until it returns without an exception.

    Raises ServiceError with the end of ``log`` when the process ends first or the time is over.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                await probe()
        except Exception as error:  # whatever it is, a server that is starting is asked again
            if not alive(process):
                raise ServiceError(f"{process.name} ended while starting\n{log_tail(log)}") from error
            if time.monotonic() >= deadline:
                raise ServiceError(
                    f"{process.name} did not answer within {timeout_seconds:.0f} s: {error!r}\n{log_tail(log)}"
                ) from error
        else:
            return
        await asyncio.sleep(_PROBE_PAUSE_SECONDS)


async def tcp_answers(port: int) -> None:
    """Raises OSError unless somebody listens on ``port`` of 127.0.0.1."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    await writer.wait_closed()


def log_tail(log: Path) -> str:
    """The path of ``log`` and its last lines."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return f"{log}: {error.strerror}"
    return "\n".join([f"--- end of {log}", *lines[-_LOG_TAIL_LINES:]])


def _pidfd(process: Process) -> int | None:
    """A pidfd of exactly this process: the start time is compared while the fd holds on to the process."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if start_time(process.pid) != process.started:
        os.close(fd)
        return None
    return fd


def _ended(fd: int, timeout_seconds: float) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(timeout_seconds * 1000))


def _reap(pid: int) -> None:
    """Takes the exit status of a child of ours, so that it does not stay as a zombie."""
    for child in _children:
        if child.pid == pid:
            child.wait()
            _children.remove(child)
            return


class Fragile:
    """A server of a test's own, in ``process`` once it was started, which can be killed, frozen and thawed."""

    __slots__ = ()
    process: Process | None

    def kill(self) -> None:
        """Ends it at once; what it held in memory is gone."""
        if self.process is not None:
            kill(self.process)

    def freeze(self) -> None:
        """Stops it in its tracks: connections stay open and nothing answers."""
        assert self.process is not None
        freeze(self.process.pid)

    def thaw(self) -> None:
        """Lets it go on."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)  # our own child, not waited for yet
