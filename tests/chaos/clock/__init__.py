"""A wall clock that jumps, for processes that are started with it; see clock.c."""

from __future__ import annotations

import asyncio
import shutil
import struct
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """The wall clock of all processes that are started with `environment`; made by `build`."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.environment = {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(file)}
        file.write_bytes(bytes(8))

    def jump(self, seconds: float) -> None:
        """Set it to so many seconds after the true time, at once; 0 sets it right."""
        with self._file.open("r+b", buffering=0) as file:  # not truncated: it is mapped
            file.write(struct.pack("=q", int(seconds * 1e9)))


async def build(folder: Path) -> Clock:
    """Compile the library into `folder`. RuntimeError without a C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise RuntimeError("no C compiler, which the jumps of the clock take: apt-get install gcc libc6-dev")
    library = folder / "clock.so"
    command = (compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl")
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"clock.c does not compile:\n{said.decode()}")
    return Clock(library, folder / "clock.offset")
