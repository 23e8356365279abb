"""Versity's S3 gateway: servers that share one folder, as several servers of a cluster share their disks."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.services import golang, minio
from tests.services.processes import Process, free_ports, kill, spawn, stop, until_answers

VERSION = "v1.8.0"
MODULE = "github.com/versity/versitygw/cmd/versitygw"

_START_SECONDS = 60.0


def build(folder: Path) -> None:
    """Compiles ``folder``/versitygw; minutes the first time.  Raises subprocess.CalledProcessError when Go fails."""
    golang.install(f"{MODULE}@{VERSION}", folder)


@dataclass(slots=True)
class Gateways:
    """Servers over one folder, with the same credentials; each can be killed and started again."""

    binary: Path
    folder: Path
    ports: tuple[int, ...]
    access_key: str = "v2td"
    secret_key: str = field(default_factory=lambda: secrets.token_hex(16))
    processes: dict[int, Process] = field(default_factory=dict)

    async def start(self, port: int) -> None:
        """Starts the one of a port and waits until it answers.  Raises ServiceError."""
        log = self.log(port)
        environment = {"ROOT_ACCESS_KEY_ID": self.access_key, "ROOT_SECRET_ACCESS_KEY": self.secret_key}
        buckets = self.folder / "buckets"
        buckets.mkdir(exist_ok=True)
        options = ["--port", f"127.0.0.1:{port}", "--region", minio.REGION]
        command: list[str | Path] = [self.binary, *options, "posix", buckets]
        process = spawn("versitygw", command, log=log, cwd=self.folder, env=environment)
        self.processes[port] = process
        await until_answers(
            process,
            lambda: minio.answers(f"http://127.0.0.1:{port}", self.access_key, self.secret_key),
            log=log,
            timeout_seconds=_START_SECONDS,
        )

    def kill(self, port: int) -> None:
        """Ends the one of a port at once, whatever it has under way."""
        kill(self.processes.pop(port))

    def log(self, port: int) -> Path:
        """Where the one of a port writes a line for each request."""
        return self.folder / f"versitygw-{port}.log"


@asynccontextmanager
async def running(binary: Path, folder: Path, count: int) -> AsyncIterator[Gateways]:
    """``count`` servers inside, their data below ``folder``; none is left behind.  Raises ServiceError."""
    gateways = Gateways(binary, folder, tuple(free_ports(count)))
    try:
        for port in gateways.ports:
            await gateways.start(port)
        yield gateways
    finally:
        for process in gateways.processes.values():
            stop(process)
