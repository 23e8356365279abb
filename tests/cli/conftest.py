"""The command as people run it: a process of its own, with settings from nowhere but the test."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.services.state import Services

FOREIGN = ("V2TD_", "STT_", "DB_", "WHISPER_", "HF_", "NO_COLOR", "COLUMNS", "CREDENTIALS_DIRECTORY")
ENDS_WITHIN_SECONDS = 60


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str


Run = Callable[..., Awaitable[Answer]]


def environment(**more: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return ours | {"V2TD_CONFIG": os.devnull} | more


async def start(*arguments: str | Path, **env: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "v2td", *map(str, arguments)),
        env=environment(**env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.fixture
async def v2td() -> AsyncIterator[Run]:
    """``await v2td("check", "--json", V2TD_ENGINE__MODEL="demo")`` runs the command to its end."""
    started: list[asyncio.subprocess.Process] = []

    async def run(*arguments: str | Path, **env: str) -> Answer:
        process = await start(*arguments, **env)
        started.append(process)
        async with asyncio.timeout(ENDS_WITHIN_SECONDS):
            stdout, stderr = await process.communicate()
        assert process.returncode is not None
        return Answer(process.returncode, stdout.decode(), stderr.decode())

    yield run
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def s3_settings(services: Services) -> dict[str, str]:
    """Variables that name the test's MinIO."""
    return {
        "V2TD_S3__ENDPOINT_URL": services.s3_endpoint,
        "V2TD_S3__ACCESS_KEY": services.s3_access_key,
        "V2TD_S3__SECRET_KEY": services.s3_secret_key,
        "V2TD_S3__REGION": services.s3_region,
    }
