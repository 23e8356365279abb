"""PostgreSQL from the machine's own packages, on a fresh data folder, reached over TCP on 127.0.0.1 only."""

import os
import pwd
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from tests.services.errors import ServiceError
from tests.services.processes import Account, Process, free_ports, log_tail, spawn, until_answers

SUPERUSER = "v2td"

_DEBIAN_VERSIONS = Path("/usr/lib/postgresql")
_START_SECONDS = 30.0
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    # The data lives as long as one run of the tests: a power cut may take it.  synchronous_commit stays on, so that a
    # server killed by a test has lost nothing that it had acknowledged.
    "fsync": "off",
    "full_page_writes": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_connections": "off",
}


@dataclass(frozen=True, slots=True)
class Server:
    """An initialised data folder, its port and password; it can be launched, killed and launched again."""

    binaries: Path
    data: Path
    port: int
    password: str = field(repr=False)
    account: Account | None

    @property
    def dsn(self) -> str:
        """The superuser's way in, to the database ``postgres``."""
        return f"postgresql://{SUPERUSER}:{self.password}@127.0.0.1:{self.port}/postgres"


def find_binaries() -> Path | None:
    """The folder with initdb and postgres: the newest of Debian's, else what PATH leads to; None when there is none."""
    for folder in sorted(_DEBIAN_VERSIONS.glob("*/bin"), key=_major, reverse=True):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb and shutil.which("postgres") else None


def unprivileged_account() -> Account | None:
    """The user that the server runs as: PostgreSQL refuses to be root.  None, for ourselves, when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise ServiceError("PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody")


def prepare(folder: Path, *, password: str, log: Path) -> Server:
    """Runs initdb in ``folder``/data, which the server's user must be able to reach; blocks about a second.

    Raises ServiceError when there is no PostgreSQL or initdb fails.
    """
    binaries = find_binaries()
    if binaries is None:
        raise ServiceError("PostgreSQL's server binaries are missing")
    account = unprivileged_account()
    data = folder / "data"
    data.mkdir(mode=0o700)
    password_file = folder / "password"
    password_file.write_text(password, encoding="utf-8")
    password_file.chmod(0o600)
    if account:
        os.chown(data, account.uid, account.gid)
        os.chown(password_file, account.uid, account.gid)
    command = [binaries / "initdb", "--pgdata", data, "--username", SUPERUSER, "--pwfile", password_file]
    command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        done = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=data,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            check=False,
        )
    password_file.unlink()
    if done.returncode:
        raise ServiceError(f"initdb failed, exit status {done.returncode}\n{log_tail(log)}")
    return Server(binaries, data, free_ports(1)[0], password, account)


def command(server: Server, *, options: Sequence[str] = ()) -> list[str | Path]:
    """The server's program with its settings; later ``options`` override earlier ones."""
    settings = {**_SETTINGS, "port": str(server.port)}
    given = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
    return [server.binaries / "postgres", "-D", server.data, *given, *options]


def launch(server: Server, *, log: Path, options: Sequence[str] = ()) -> Process:
    """Starts the server without waiting for it."""
    return spawn(
        "postgres",
        command(server, options=options),
        log=log,
        cwd=server.data,
        account=server.account,
        stop_signal=signal.SIGINT,  # PostgreSQL's fast shutdown; SIGTERM would wait for every client to leave
    )


async def ready(server: Server, process: Process, *, log: Path) -> None:
    """Waits until the server answers a query.  Raises ServiceError when it does not come up."""
    await until_answers(process, lambda: answers(server.dsn), log=log, timeout_seconds=_START_SECONDS)


async def answers(dsn: str) -> None:
    """Raises OSError or asyncpg's errors unless the server behind ``dsn`` answers a query."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        await connection.execute("SELECT 1")
    finally:
        await connection.close()


def _major(folder: Path) -> int:
    """15 for /usr/lib/postgresql/15/bin; 0 for a name that is no number."""
    found = re.match(r"\d+", folder.parent.name)
    return int(found.group()) if found else 0
