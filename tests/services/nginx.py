"""nginx with a configuration of ours, on a port and in a folder of the test's own."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.services.errors import ServiceError
from tests.services.processes import free_ports, spawn, stop, tcp_answers, until_answers

PROGRAM = "nginx"
CURE = f"{PROGRAM} is not there: python -m tests.services build"

_START_SECONDS = 20.0
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def find_program() -> str | None:
    """Where nginx is: Debian puts it where only root's PATH looks."""
    return shutil.which(PROGRAM, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


def adapted(text: str, *, port: int, upstreams: Sequence[int], folder: Path) -> str:
    """The same configuration for this machine: ports of loopback for names, and its own files below ``folder``.

    Of the servers before as many stay as there are ``upstreams``.  Raises ServiceError for a text that does not fit.
    """
    left = list(upstreams)

    def server(match: re.Match[str]) -> str:
        return f"{match[1]}127.0.0.1:{left.pop(0)}{match[2]}" if left else ""

    text, listens = re.subn(r"listen \d+;", f"listen 127.0.0.1:{port};", text)
    text, servers = re.subn(r"( +server )[\w.-]+:\d+( [^;]*;\n)", server, text)
    temporary = "".join(f"    {name}_temp_path {folder}/{name};\n" for name in _TEMPORARY)
    text, blocks = re.subn(r"^http \{\n", f"http {{\n    access_log off;\n{temporary}", text, flags=re.MULTILINE)
    if (listens, blocks) != (1, 1) or servers < len(upstreams):
        raise ServiceError("nginx.conf: no single listen and http block, or fewer servers than wanted")
    user = "user root;\n" if os.geteuid() == 0 else ""  # another one could not enter the test's folder
    return f"{user}pid {folder}/nginx.pid;\n{text}"


@asynccontextmanager
async def running(text: str, folder: Path, upstreams: Sequence[int]) -> AsyncIterator[str]:
    """The URL of an nginx that runs ``text``, adapted; nothing of it is left behind.  Raises ServiceError."""
    program = find_program()
    if program is None:
        raise ServiceError(CURE)
    (port,) = free_ports(1)
    config, log = folder / "nginx.conf", folder / "nginx.log"
    config.write_text(adapted(text, port=port, upstreams=upstreams, folder=folder), encoding="utf-8")
    command: list[str | Path] = [program, "-p", folder, "-c", config, "-e", "stderr", "-g", "daemon off;"]
    process = spawn(PROGRAM, command, log=log, cwd=folder)
    try:
        await until_answers(process, lambda: tcp_answers(port), log=log, timeout_seconds=_START_SECONDS)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)
