"""Prometheus with our rules, on a port and in a folder of the test's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.services.errors import ServiceError
from tests.services.processes import free_ports, spawn, stop, until_answers

PROGRAM = "prometheus"
CURE = f"{PROGRAM} is not there: python -m tests.services build"

_START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running one."""

    url: str
    session: aiohttp.ClientSession

    async def get(self, path: str, **parameters: str) -> Any:
        """Return what the HTTP API answers.  Raises ServiceError with its words when it refuses."""
        async with self.session.get(f"{self.url}/api/v1/{path}", params=parameters) as answer:
            found = await answer.json()
        if found["status"] != "success":
            raise ServiceError(f"{path}: {found['error']}")
        return found["data"]

    async def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the series that an expression has now."""
        found = await self.get("query", query=expr)
        return list(found["result"]) if found["resultType"] == "vector" else [found]


@asynccontextmanager
async def running(
    folder: Path, targets: Sequence[str], rules: Sequence[Path], token_file: Path
) -> AsyncIterator[Prometheus]:
    """A Prometheus that scrapes ``targets`` as job v2td each second, with a token; nothing of it is left behind.

    Raises ServiceError.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise ServiceError(CURE)
    (port,) = free_ports(1)
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(each) for each in rules],
        "scrape_configs": [
            {
                "job_name": "v2td",
                "authorization": {"credentials_file": str(token_file)},
                "static_configs": [{"targets": list(targets)}],
            }
        ],
    }
    file, log = folder / "prometheus.yml", folder / "prometheus.log"
    file.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    command: list[str | Path] = [
        program,
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    process = spawn(PROGRAM, command, log=log, cwd=folder)
    try:
        async with aiohttp.ClientSession() as session:

            async def ready() -> None:
                async with session.get(f"http://127.0.0.1:{port}/-/ready") as answer:
                    answer.raise_for_status()

            await until_answers(process, ready, log=log, timeout_seconds=_START_SECONDS)
            yield Prometheus(f"http://127.0.0.1:{port}", session)
    finally:
        stop(process)
