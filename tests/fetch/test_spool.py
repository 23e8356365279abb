import multiprocessing
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from v2td.errors import ServiceError
from v2td.fetch.spool import Spool, default_spool_dir

HOLDER = """
import pathlib, sys
from v2td.fetch.spool import Spool
with Spool(pathlib.Path(sys.argv[1])) as spool, spool.incoming() as file:
    file.write(b"x")
    print(file.path, flush=True)
    sys.stdin.read()
"""


def hold(base: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(base)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def test_only_the_folders_of_dead_daemons_are_removed(tmp_path: Path) -> None:
    living, its_file = hold(tmp_path)
    dead, stale = hold(tmp_path)
    with living, dead:
        dead.kill()
        dead.wait()
        assert stale.exists()
        with Spool(tmp_path) as spool:
            assert not stale.parent.exists()
            assert its_file.exists()
            assert spool.folder.is_dir()
        assert its_file.exists()
        living.communicate("")
    assert list(tmp_path.iterdir()) == []


def test_strangers_are_left_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    base = tmp_path / "base"
    base.mkdir()
    (base / "v2td-spool-link").symlink_to(elsewhere)
    (base / "v2td-spool-file").touch()
    (base / "other").mkdir()
    with Spool(base):
        pass
    assert (elsewhere / "precious").exists()
    assert {path.name for path in base.iterdir()} == {"v2td-spool-link", "v2td-spool-file", "other"}


def test_daemons_that_start_together_keep_their_folders(tmp_path: Path) -> None:
    """A folder that is made but not yet locked looks stale to another daemon."""
    start = threading.Barrier(8)
    errors: list[str] = []

    def run() -> None:
        start.wait()
        for _ in range(30):
            with Spool(tmp_path) as spool, spool.incoming() as file:
                file.write(b"x")
                if not file.path.exists():
                    errors.append(str(file.path))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert list(tmp_path.iterdir()) == []


def test_children_do_not_inherit_the_lock(tmp_path: Path) -> None:
    """Decoders and slots outlive a killed daemon by a moment; the folder must not stay held by them."""
    context = multiprocessing.get_context("spawn")
    release = context.Event()
    with Spool(tmp_path) as spool:
        child = context.Process(target=release.wait, args=(20,))
        child.start()
        folder = spool.folder
        held = {os.path.realpath(f"/proc/{child.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{child.pid}/fd")}  # noqa: PTH208 (of another process)
    release.set()
    child.join()
    assert str(folder) not in held


def test_modes_and_names(tmp_path: Path) -> None:
    with Spool(tmp_path / "deep" / "base") as spool, spool.incoming() as file:
        assert stat.S_IMODE(spool.folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_unusable_folder_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServiceError, match=r"fetch\.spool_dir"), Spool(tmp_path / "file"):
        pass


def test_cache_folder_of_the_service_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", "/var/cache/v2td:/var/cache/other")
    assert default_spool_dir() == Path("/var/cache/v2td")
