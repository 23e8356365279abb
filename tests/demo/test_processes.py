from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import psutil
import pytest

from v2td.demo.processes import Death, finish, running
from v2td.errors import ServiceError


async def test_a_process_ends_with_its_block(tmp_path: Path) -> None:
    async with running(["/bin/sleep", "60"], tmp_path / "log") as process:
        assert psutil.pid_exists(process.pid)
    assert process.returncode == -signal.SIGTERM
    assert not psutil.pid_exists(process.pid)


async def test_a_process_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which a child inherits
    try:
        async with running(["/bin/sleep", "60"], tmp_path / "log", Death(seconds=0.2)) as process:
            pass
    finally:
        signal.signal(signal.SIGTERM, before)
    assert process.returncode == -signal.SIGKILL


async def test_a_cancelled_block_leaves_no_process(tmp_path: Path) -> None:
    started: asyncio.Future[asyncio.subprocess.Process] = asyncio.get_running_loop().create_future()

    async def hold() -> None:
        async with running(["/bin/sleep", "60"], tmp_path / "log") as process:
            started.set_result(process)
            await asyncio.sleep(60)

    task = asyncio.create_task(hold())
    process = await started
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not psutil.pid_exists(process.pid)


async def test_it_is_in_a_session_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", "import os; print(os.getsid(0) == os.getpid())"]
    async with running(command, log) as process:
        await process.wait()
    assert log.read_text().strip() == "True"


async def test_finish_tells_what_the_process_said(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with running(["/bin/sh", "-c", "echo no luck >&2; exit 3"], log) as process:
        with pytest.raises(ServiceError, match="no luck"):
            await finish(process, "try", log)
