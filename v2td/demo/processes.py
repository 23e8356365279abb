"""Child processes that end with this one, whatever ends it."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from v2td.errors import ServiceError

TETHER = Path(__file__).with_name("tether.py")
UNPRIVILEGED = ("nobody", "daemon", "postgres")  # users that exist nearly everywhere, the least able one first


@dataclass(frozen=True, slots=True)
class Death:
    """How a process is ended: `order` asks it, after `seconds` it is killed; `orphan` is sent when we die."""

    order: signal.Signals = signal.SIGTERM
    seconds: float = 10
    orphan: signal.Signals = signal.SIGKILL


def unprivileged_user() -> pwd.struct_passwd | None:
    """For root an existing user to run Postgres as, which refuses root; None for everybody else."""
    if os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise ServiceError(
        "start the embedded Postgres",
        f"it refuses to run as root, and there is no user named {', '.join(UNPRIVILEGED)}",
        "run the demo as an ordinary user",
    )


@asynccontextmanager
async def running(
    command: Sequence[str],
    log: Path,
    death: Death = Death(),
    *,
    user: pwd.struct_passwd | None = None,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the command in a session of its own (a terminal's Ctrl-C is for us), its output appended to `log`.

    `command[0]` is an absolute path. On exit, cancelled or not, the process is gone and has been waited for. Enter
    it in the main thread: the kernel counts the death of the starting thread as that of the parent.
    """
    identity = (user.pw_uid, user.pw_gid) if user else (-1, -1)
    tether = [sys.executable, "-I", "-S", str(TETHER), *map(str, (os.getpid(), int(death.orphan), *identity))]
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *tether,
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",  # ours may be closed to that user
            env=env,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        await _end(process, death)


async def _end(process: asyncio.subprocess.Process, death: Death) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(death.order)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(death.seconds):
                await process.wait()
    finally:
        if process.returncode is None:  # too slow, or we were cancelled while we waited
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def finish(process: asyncio.subprocess.Process, operation: str, log: Path) -> None:
    """Wait for a process that should end well; ServiceError with the end of its log when it does not."""
    if await process.wait() != 0:
        raise ServiceError(operation, last_lines(log) or f"exit code {process.returncode}")


def last_lines(log: Path, count: int = 5) -> str:
    """The end of a log, for an error message."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-count:])
