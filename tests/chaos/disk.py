"""A small disk that fills up and becomes read-only: a tmpfs of a fault's own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LOOK_SECONDS = 0.01
PAGE_BYTES = 4096
BUSY_SECONDS = 20.0


class Disk:
    """A mounted tmpfs; made by `small_disk`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @asynccontextmanager
    async def full(self) -> AsyncIterator[None]:
        """Have no byte left inside the block, whatever others give back meanwhile."""
        ballast = self.folder / "ballast"
        with ballast.open("wb", buffering=0) as file:
            _fill(file)
            filling = asyncio.create_task(_keep_full(file))
            try:
                yield
            finally:
                filling.cancel()
                await asyncio.wait([filling])
                ballast.unlink()

    @asynccontextmanager
    async def read_only(self) -> AsyncIterator[None]:
        """Have nothing written inside the block; begins as soon as nobody has a file open for writing."""
        async with asyncio.timeout(BUSY_SECONDS):
            while await _run("mount", "-o", "remount,ro", str(self.folder)):
                await asyncio.sleep(LOOK_SECONDS)
        try:
            yield
        finally:
            await _run("mount", "-o", "remount,rw", str(self.folder))

    def files(self) -> list[Path]:
        """Return what lies there, at any depth."""
        return [each for each in self.folder.rglob("*") if each.is_file()]


@asynccontextmanager
async def small_disk(folder: Path, kilobytes: int) -> AsyncIterator[Disk]:
    """Mount a tmpfs at `folder`, which is made. RuntimeError when we may not."""
    if os.geteuid() != 0:
        raise RuntimeError("a small disk has to be mounted, which only root may do: run this as root")
    folder.mkdir()
    if status := await _run("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=0700", "v2td-chaos", str(folder)):
        raise RuntimeError(f"mount ended with {status}: a small disk takes the right to mount (CAP_SYS_ADMIN)")
    try:
        yield Disk(folder)
    finally:
        await _run("umount", "--lazy", str(folder))


def _fill(file: BinaryIO) -> None:
    with suppress(OSError):
        while True:
            file.write(bytes(PAGE_BYTES))


async def _keep_full(file: BinaryIO) -> None:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        _fill(file)


async def _run(*command: str) -> int:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    return await process.wait()
