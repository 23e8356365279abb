"""Everything the demo runs, as one `async with`: services, a generated config, and the real daemon as a child."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from v2td.demo.broker import broker
from v2td.demo.folder import demo_folder
from v2td.demo.postgres import postgres
from v2td.demo.processes import Death, last_lines, running
from v2td.demo.webserver import webserver
from v2td.errors import ServiceError

JOBS_TOPIC = "v2td-jobs"
DEAD_LETTER_TOPIC = "v2td-dead-letters"
READY_SECONDS = 60
DRAIN_SECONDS = 2  # Ctrl-C ends the demo, not the jobs
DAEMON_DEATH = Death(order=signal.SIGTERM, seconds=10, orphan=signal.SIGKILL)
# A user's own settings and Postgres variables are not for the demo's daemon, nor is its service manager.
FOREIGN_VARIABLES = ("V2TD_", "STT_", "WHISPER_", "DB_", "PG", "NOTIFY_SOCKET", "WATCHDOG_", "CREDENTIALS_DIRECTORY")


@dataclass(frozen=True, slots=True)
class Session:
    """What runs, and how to reach it."""

    folder: Path
    config: Path
    log: Path
    bootstrap_servers: str
    audio_url: str  # without the file's name
    dsn: str
    psql: str
    admin_url: str
    daemon: asyncio.subprocess.Process

    def raise_if_dead(self) -> None:
        """ServiceError with the end of its log when the daemon has ended."""
        if self.daemon.returncode is not None:
            raise ServiceError("run the daemon", f"it ended with code {self.daemon.returncode}", last_lines(self.log))


@asynccontextmanager
async def session() -> AsyncIterator[Session]:
    """Bring everything up and yield when the daemon is ready; afterwards nothing of it is left.

    Enter it in the main thread. Raises ServiceError, saying which part did not start and why.
    """
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(demo_folder())
        bootstrap_servers = stack.enter_context(broker([JOBS_TOPIC, DEAD_LETTER_TOPIC]))
        web_port = await stack.enter_async_context(webserver())
        database = await stack.enter_async_context(postgres(folder))
        admin_port = _free_port()
        config, log = folder / "config.toml", folder / "daemon.log"
        settings = generated_settings(folder, bootstrap_servers, web_port, database.dsn, admin_port)
        config.touch(mode=0o600, exist_ok=False)
        config.write_text(as_toml(settings), encoding="utf-8")
        daemon = await stack.enter_async_context(
            running(
                [sys.executable, "-m", "v2td", "run", "--config", str(config)], log, DAEMON_DEATH, env=_environment()
            )
        )
        started = Session(
            folder=folder,
            config=config,
            log=log,
            bootstrap_servers=bootstrap_servers,
            audio_url=f"http://127.0.0.1:{web_port}",
            dsn=database.dsn,
            psql=database.psql,
            admin_url=f"http://127.0.0.1:{admin_port}",
            daemon=daemon,
        )
        await _until_ready(started)
        yield started


def generated_settings(
    folder: Path, bootstrap_servers: str, web_port: int, dsn: str, admin_port: int
) -> dict[str, dict[str, Any]]:
    """What differs from the defaults; all that the daemon writes stays inside the demo's folder."""
    for name in ("spool", "pcm"):
        (folder / name).mkdir(mode=0o700)
    return {
        "kafka": {
            "bootstrap_servers": [bootstrap_servers],
            "topics": [JOBS_TOPIC],
            "dead_letter_topic": DEAD_LETTER_TOPIC,
            "group_id": "v2td-demo",
        },
        "pipeline": {"drain_seconds": DRAIN_SECONDS},
        "fetch": {
            "allowed_ports": [web_port],
            "allowed_networks": ["127.0.0.0/8"],
            "spool_dir": str(folder / "spool"),
        },
        "speech": {"pcm_dir": str(folder / "pcm")},
        "engine": {"model": "demo"},
        "database": {"dsn": dsn},
        "admin": {"port": admin_port},
    }


def as_toml(settings: dict[str, dict[str, Any]]) -> str:
    """JSON writes strings, numbers and lists of them as TOML does."""
    tables = (
        "\n".join([f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()), ""])
        for name, table in settings.items()
    )
    return "# Written by `v2td demo`: all that differs from the defaults.\n" + "\n".join(tables)


def _environment() -> dict[str, str]:
    """Ours without what would override the generated config."""
    return {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_VARIABLES)}


def _free_port() -> int:
    """A port that is free now: the daemon binds it a second later, long before the kernel hands it out again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _until_ready(started: Session) -> None:
    """Ask /readyz until it says yes, the daemon has ended, or READY_SECONDS have passed."""
    try:
        async with asyncio.timeout(READY_SECONDS), aiohttp.ClientSession() as client:
            while True:
                started.raise_if_dead()
                try:
                    async with client.get(f"{started.admin_url}/readyz") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientConnectionError:
                    pass  # not listening yet
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise ServiceError("start the daemon", f"not ready after {READY_SECONDS} s", last_lines(started.log)) from None
