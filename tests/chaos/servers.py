"""Servers of a fault's own, to be stopped, frozen and filled: what they leave behind goes with us, however we end."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil

from tests.services import postgres, stack, state
from tests.services.processes import Process, kill, spawn, this_process

_SMALL_DISK_MEGABYTES = 64
_SHUTDOWN = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_SETTINGS = ("-c", "max_connections=60")

Shutdown = Literal["fast", "immediate"]


@dataclass(frozen=True, slots=True)
class Place:
    """A folder for servers and their logs. Their processes are written down: when we are killed, the next
    `python -m tests.services run` ends them."""

    folder: Path
    logs: Path
    file: Path
    found: state.State

    def started(self, process: Process) -> Process:
        """Write a process down as one that goes with us."""
        self.found.processes.append(process)
        state.write(self.file, self.found)
        return process


@contextmanager
def place(name: str) -> Iterator[Place]:
    """Make a folder; at the end kill what was started in it, and remove it. The logs stay."""
    folder = Path(tempfile.mkdtemp(prefix=f"v2td-{name}-"))
    folder.chmod(0o711)  # the database's user must be able to pass through
    unique = f"run-{name}-{os.getpid()}-{secrets.token_hex(3)}"
    found = state.State(owner=this_process(), data_folder=str(folder))
    mine = Place(folder, state.FOLDER / "logs" / unique, state.FOLDER / f"{unique}.json", found)
    state.write(mine.file, found)
    try:
        yield mine
    finally:
        for process in found.processes:  # nobody needs their data: no time for good order
            thaw(process)
            kill(process)
        stack.down(mine.file)


def freeze(process: Process) -> None:
    """Stop a process and all its children, those too that it makes meanwhile (SIGSTOP)."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        parent.suspend()
        for child in parent.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.suspend()


def thaw(process: Process) -> None:
    """Let a frozen process and its children go on."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        for each in (*parent.children(recursive=True), parent):
            with suppress(psutil.NoSuchProcess):
                each.resume()


class PostgresServer:
    """A running Postgres of our own; made by `postgres_server`."""

    def __init__(self, home: Place, server: postgres.Server, disk: Path | None) -> None:
        self.server = server
        self.has_small_disk = disk is not None
        self._home = home
        self._log = home.logs / "postgres.log"
        self._disk = disk
        self._process: Process | None = None

    async def start(self) -> None:
        """Launch it, and return when it answers."""
        if self._disk is None:
            process = postgres.launch(self.server, log=self._log, options=_SETTINGS)
        else:
            process = self._launch_with_disk(self._disk)
        self._process = self._home.started(process)
        await postgres.ready(self.server, process, log=self._log)

    async def stop(self, how: Shutdown) -> None:
        """Shut it down and wait until it has ended; `fast` rolls transactions back, `immediate` is a crash."""
        assert self._process is not None
        await asyncio.to_thread(kill, self._process, _SHUTDOWN[how], grace_seconds=20.0)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Have it answer nobody inside the block; connections stay, and new ones are taken by the kernel."""
        assert self._process is not None
        freeze(self._process)
        try:
            yield
        finally:
            thaw(self._process)

    async def create_database(self) -> str:
        """Return the DSN of a new, empty database."""
        name = f"chaos_{secrets.token_hex(4)}"
        await self._execute(f"CREATE DATABASE {name}")
        return urlunsplit(urlsplit(self.server.dsn)._replace(path=f"/{name}"))

    async def use_small_disk(self) -> None:
        """Have all databases that are made from now on live on the small disk."""
        await self._execute(f"CREATE TABLESPACE small LOCATION '{self._disk}'")
        await self._execute("ALTER DATABASE template1 SET TABLESPACE small")  # what a new one is a copy of

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Have no byte left on the small disk inside the block."""
        ballast = self._seen_from_here() / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        try:
            yield
        finally:
            ballast.unlink()

    def free_bytes(self) -> int:
        """Return what is left on the small disk."""
        usage = os.statvfs(self._seen_from_here())
        return usage.f_bavail * usage.f_frsize

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.server.dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _seen_from_here(self) -> Path:
        assert self._process is not None
        assert self._disk is not None
        return Path(f"/proc/{self._process.pid}/root{self._disk}")

    def _launch_with_disk(self, disk: Path) -> Process:
        """Launch it with a small tmpfs in a mount namespace of its own: the kernel removes it with the process."""
        account = self.server.account
        assert account is not None
        options = f"size={_SMALL_DISK_MEGABYTES}m,mode=0700,uid={account.uid},gid={account.gid}"
        become = ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
        mount = 'mount -t tmpfs -o "$0" none "$1"; shift; exec "$@"'
        command = postgres.command(self.server, options=_SETTINGS)
        return spawn(
            "postgres",
            ["unshare", "--mount", "sh", "-ec", mount, options, disk, *become, *command],
            log=self._log,
            cwd=self.server.data,
            stop_signal=signal.SIGINT,
        )


def can_have_small_disk() -> bool:
    """Whether we may mount: as root on Linux, with the programs of util-linux."""
    return os.geteuid() == 0 and bool(shutil.which("unshare") and shutil.which("setpriv"))


@asynccontextmanager
async def postgres_server(*, small_disk: bool = False) -> AsyncIterator[PostgresServer]:
    """Start a Postgres; with `small_disk` its databases live on a tmpfs of 64 MB."""
    with place("postgres") as home:
        server = await asyncio.to_thread(
            postgres.prepare, home.folder, password=secrets.token_hex(16), log=home.logs / "initdb.log"
        )
        disk = home.folder / "small" if small_disk else None
        if disk is not None:
            disk.mkdir()
        running = PostgresServer(home, server, disk)
        await running.start()
        if small_disk:
            await running.use_small_disk()
        yield running
