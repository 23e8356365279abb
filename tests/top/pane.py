"""A terminal for a command: a pane of a tmux server of its own."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.cli.conftest import environment

DEADLINE_SECONDS = 40
SHELL = "env -u ENV PS1='$ ' sh"


class Pane:
    """What is on the screen, and keys for it."""

    def __init__(self, socket: Path, env: dict[str, str]) -> None:
        self._socket = socket
        self._env = env

    async def tmux(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *("tmux", "-u", "-f", os.devnull, "-S", str(self._socket), *arguments),
            env=self._env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        stdout, stderr = await process.communicate()
        assert process.returncode == 0, (arguments, stderr)
        return stdout.decode()

    async def start(self, width: int, height: int) -> None:
        await self.tmux("new-session", "-d", "-x", str(width), "-y", str(height), SHELL)

    async def v2td(self, *arguments: str | Path) -> None:
        """Type a command of v2td."""
        await self.type(shlex.join([sys.executable, "-m", "v2td", *map(str, arguments)]), "Enter")

    async def type(self, *keys: str) -> None:
        await self.tmux("send-keys", *keys)

    async def resize(self, width: int, height: int) -> None:
        await self.tmux("resize-window", "-x", str(width), "-y", str(height))

    async def lines(self, *options: str) -> list[str]:
        """Return the screen's lines, trailing blanks left out."""
        return (await self.tmux("capture-pane", "-p", *options)).split("\n")[:-1]

    async def until(self, shows: Callable[[list[str]], bool], *options: str) -> list[str]:
        """Wait until the screen shows something, and return its lines."""
        lines: list[str] = []
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not shows(lines := await self.lines(*options)):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError("the screen has\n" + "\n".join(lines)) from None
        return lines


@asynccontextmanager
async def pane(width: int, height: int, **env: str) -> AsyncIterator[Pane]:
    """A shell in a terminal of this size; it ends, with all that runs in it, at the end."""
    folder = Path(tempfile.mkdtemp(prefix="v2td-"))  # short: the path of a socket may have some 100 bytes
    ours = {name: value for name, value in environment(LC_ALL="C.UTF-8", **env).items() if name != "TMUX"}
    found = Pane(folder / "tmux", ours)
    try:
        await found.start(width, height)
        try:
            yield found
        finally:  # also of a test that failed: nobody finds the server again
            await found.tmux("kill-server")
    finally:
        shutil.rmtree(folder)
