import contextlib
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from v2td.fetch.kept import KeptFiles
from v2td.fetch.validators import Validator


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"V2TD_CACHE__FILE_DIR": str(tmp_path / "kept"), "V2TD_CACHE__FILE_BYTES": "5000000"}


def fill(folder: Path, count: int = 2) -> None:
    recording = folder.parent / "recording"
    recording.write_bytes(bytes(1_500_000))
    with KeptFiles(folder, 5_000_000, 5_000_000, "first") as files:
        for number in range(count):
            assert files.keep(f"address {number}", recording, 1_500_000, "", Validator('"1"', ""))


async def test_info(v2td: Run, env: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    answer = await v2td("cache", "info", **env)
    assert (answer.code, answer.stdout) == (0, f"{folder}: 0 recordings, 0.0 MB (of 5 MB)\n")
    assert not folder.exists()  # who looks makes nothing
    fill(folder)
    answer = await v2td("cache", "info", **env)
    assert answer.stdout == f"{folder}: 2 recordings, 3.0 MB (of 5 MB)\n"
    answer = await v2td("cache", "info", "--json", **env)
    assert json.loads(answer.stdout) == {
        "folder": str(folder),
        "files": 2,
        "bytes": 3_000_000,
        "max_bytes": 5_000_000,
    }
    answer = await v2td("cache", "info", V2TD_CACHE__FILE_DIR=str(folder))
    assert answer.stdout == f"{folder}: 2 recordings, 3.0 MB (off: set cache.file_bytes)\n"


async def test_the_folder_below_the_spool(v2td: Run, tmp_path: Path) -> None:
    answer = await v2td("cache", "info", "--json", V2TD_FETCH__SPOOL_DIR=str(tmp_path))
    assert json.loads(answer.stdout)["folder"] == str(tmp_path / "v2td-files")


async def test_clear(v2td: Run, env: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    fill(folder, 1)
    answer = await v2td("cache", "clear", **env)  # nobody is there to answer
    assert answer.code == 1
    assert f"Delete 1 recording, 1.5 MB in {folder}?" in answer.stderr
    assert len(list((folder / "files").iterdir())) == 1
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(KeptFiles(folder, 5_000_000, 5_000_000, "first"))
        answer = await v2td("cache", "clear", "--yes", **env)
        assert (answer.code, answer.stdout) == (0, f"{folder}: 1 recording, 1.5 MB deleted\n")
        assert daemon.sums().files == 0
    assert list((folder / "files").iterdir()) == []
    answer = await v2td("cache", "clear", "-y", "--json", **env)
    assert json.loads(answer.stdout)["files"] == 0


async def test_a_folder_of_no_use(v2td: Run, env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "files").touch()
    answer = await v2td("cache", "info", **env)
    assert answer.code == 1
    assert answer.stderr.startswith("error: look at the cache of files: ")
    assert "the user of the daemon" in answer.stderr
