"""whisper.cpp's HTTP server, from the very sources that the installed pywhispercpp was built of."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.services.errors import ServiceError
from tests.services.processes import Fragile, Process, free_ports, spawn, until_answers

# pywhispercpp's source distribution holds whisper.cpp with its examples, of which the server is one.
VERSION = "1.5.1"
SHA256 = "5df897e5dd9d9f16804fc937bd85b9f5880a0b29a55f8843585e0e03d76195e5"
PROGRAM = "whisper-server"

_START_SECONDS = 60.0
_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DGGML_NATIVE=OFF",  # the cache may be taken to another machine
    "-DGGML_AVX2=ON",
    "-DGGML_FMA=ON",
    "-DGGML_F16C=ON",
    "-DWHISPER_BUILD_TESTS=OFF",
    "-DCMAKE_C_FLAGS=-w",  # its warnings are not ours to mend
    "-DCMAKE_CXX_FLAGS=-w",
)


def build(folder: Path) -> None:
    """Compiles ``folder``/whisper-server; two minutes.  Raises subprocess.CalledProcessError when that fails."""
    sources = folder / "sources"
    wanted = folder / "wanted.txt"
    wanted.write_text(f"pywhispercpp=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "-d", str(sources)]
    # pip runs a part of the sources to learn their name: not before it has compared the hash.
    _run(*pip, "--no-deps", "--no-binary", "pywhispercpp", "--require-hashes", "-r", str(wanted))
    with tarfile.open(sources / f"pywhispercpp-{VERSION}.tar.gz") as packed:
        packed.extractall(sources, filter="data")
    tree = sources / f"pywhispercpp-{VERSION}" / "whisper.cpp"
    objects = folder / "objects"
    _run("cmake", "-S", str(tree), "-B", str(objects), *_OPTIONS)
    _run("cmake", "--build", str(objects), "--target", PROGRAM, "-j", str(len(os.sched_getaffinity(0))))
    (objects / "bin" / PROGRAM).rename(folder / PROGRAM)
    for each in (sources, objects):
        shutil.rmtree(each)


@dataclass(slots=True)
class Server(Fragile):
    """A server on a port of loopback; it can be killed, frozen and launched again."""

    program: Path
    model: Path
    folder: Path
    port: int
    options: tuple[str, ...] = ()
    process: Process | None = None

    @property
    def url(self) -> str:
        """What `server_url` takes."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Starts it and waits until its model is loaded.  Raises ServiceError."""
        log = self.folder / "whisper-server.log"
        address = ["--host", "127.0.0.1", "--port", str(self.port)]
        command: list[str | Path] = [self.program, *address, "-m", self.model, "-t", "1", *self.options]
        self.process = spawn(PROGRAM, command, log=log, cwd=self.folder)
        await until_answers(self.process, self._answers, log=log, timeout_seconds=_START_SECONDS)

    async def _answers(self) -> None:
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/health") as response:
            if response.status != 200:
                raise ServiceError(f"/health answers {response.status}")


@asynccontextmanager
async def running(build: Path, model: Path, folder: Path, *options: str) -> AsyncIterator[Server]:
    """A server of that build with a model, which is gone at the end.  Raises ServiceError."""
    (port,) = free_ports(1)
    server = Server(build / PROGRAM, model, folder, port, options)
    try:
        await server.start()
        yield server
    finally:
        await asyncio.to_thread(server.kill)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
