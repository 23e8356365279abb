"""Redis: one server of a test's own, without files; it can be killed, frozen and launched again."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis

from tests.services.errors import ServiceError
from tests.services.processes import Fragile, Process, free_ports, spawn, until_answers

PROGRAM = "redis-server"
CURE = f"{PROGRAM} is not there: python -m tests.services build"

_START_SECONDS = 20.0


@dataclass(slots=True)
class Server(Fragile):
    """A server on a port of its own and on a socket in its folder, with a password.

    ``certificate`` and ``authority`` are PEM files, the first with its key: with them it speaks TLS on its port.
    """

    folder: Path
    port: int
    certificate: Path | None = None
    authority: Path | None = None
    password: str = field(default_factory=lambda: secrets.token_hex(8))
    process: Process | None = None

    @property
    def url(self) -> str:
        """What `cache.redis_url` takes."""
        if self.certificate is not None:
            return f"rediss://:{self.password}@127.0.0.1:{self.port}/0?ssl_ca_certs={self.authority}"
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        """The same by way of the socket."""
        return f"unix://:{self.password}@{self.folder}/redis.sock"

    async def start(self) -> None:
        """Starts it, empty, and waits until it answers.  Raises ServiceError."""
        program = shutil.which(PROGRAM)
        if program is None:
            raise ServiceError(CURE)
        config = self.folder / "redis.conf"  # not the command line, which anybody may read
        lines = [
            "bind 127.0.0.1",
            "unixsocket redis.sock",  # in its folder: a path may be too long for a socket
            f"requirepass {self.password}",
            "save ''",
            "appendonly no",
        ]
        if self.certificate is None:
            lines.append(f"port {self.port}")
        else:
            lines += ["port 0", f"tls-port {self.port}", "tls-auth-clients no"]
            lines += [f"tls-cert-file {self.certificate}", f"tls-key-file {self.certificate}"]
            lines += [f"tls-ca-cert-file {self.authority}"]
        config.write_text("\n".join([*lines, ""]), encoding="utf-8")
        log = self.folder / "redis.log"
        self.process = spawn("redis", [program, config], log=log, cwd=self.folder)
        await until_answers(self.process, self._answers, log=log, timeout_seconds=_START_SECONDS)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Redis]:
        """A client to look behind the scenes."""
        client = Redis.from_url(self.url)
        try:
            yield client
        finally:
            await client.aclose()

    async def _answers(self) -> None:
        async with self.client() as client:
            await client.ping()


@asynccontextmanager
async def running(
    folder: Path, certificate: Path | None = None, authority: Path | None = None
) -> AsyncIterator[Server]:
    """A server inside; no process of it is left behind."""
    server = Server(folder, free_ports(1)[0], certificate, authority)
    try:
        await server.start()
        yield server
    finally:
        server.kill()  # frozen or not; it has no files
