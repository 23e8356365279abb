"""The other end of Type=notify: readiness, status, watchdog, more time to stop."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

STATUS_LENGTH = 200  # characters; the manager shows one line


def notify(*states: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send states such as `READY=1` to the service manager; False when there is none, or it does not read.

    Never waits: a manager that lets its queue fill up must not hold up the event loop. An unreachable socket is an
    OSError: silence would end in the manager's timeout, unexplained.
    """
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):  # the abstract namespace
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as datagrams:
        datagrams.setblocking(False)
        try:
            datagrams.connect(address)
            datagrams.send("\n".join(states).encode())
        except BlockingIOError:  # its queue is full
            return False
    return True


def status(text: str) -> str:
    """Return the state that `systemctl status` shows."""
    return "STATUS=" + " ".join(text.split())[:STATUS_LENGTH]


def extend_timeout(seconds: float) -> str:
    """Return the state that asks for more time, from now, to start or to stop."""
    return f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}"


def watchdog_seconds(environ: Mapping[str, str] = os.environ) -> float | None:
    """Return within how many seconds the manager wants to hear `WATCHDOG=1`; None when it does not."""
    usec = environ.get("WATCHDOG_USEC", "")
    pid = environ.get("WATCHDOG_PID")
    if not usec.isdigit() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1_000_000
