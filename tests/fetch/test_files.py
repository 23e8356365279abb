import hashlib
import os
from pathlib import Path

import pytest

from tests.fetch.conftest import MakeDownloader
from v2td.errors import ErrorClass, JobError
from v2td.jobs import Audio
from v2td.metrics import FETCHED_BYTES


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


async def test_file_below_a_root(root: Path, make_downloader: MakeDownloader) -> None:
    path = root / "a b#c?ü%.wav"
    path.write_bytes(b"audio")
    before = FETCHED_BYTES.labels("file")._value.get()
    downloader = await make_downloader(file_roots=(root,))
    audio = await downloader.fetch(path.as_uri())
    assert audio == Audio(path, 5, hashlib.sha256(b"audio").hexdigest(), temporary=False)
    assert FETCHED_BYTES.labels("file")._value.get() - before == 5
    downloader.discard(audio)
    assert path.exists()


async def test_root_that_is_a_symlink(root: Path, tmp_path: Path, make_downloader: MakeDownloader) -> None:
    (root / "a.wav").write_bytes(b"audio")
    (tmp_path / "alias").symlink_to(root)
    downloader = await make_downloader(file_roots=(tmp_path / "alias",))
    assert (await downloader.fetch((tmp_path / "alias" / "a.wav").as_uri())).path == root / "a.wav"


async def test_outside_of_the_roots(root: Path, tmp_path: Path, make_downloader: MakeDownloader) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "root2").mkdir()
    (tmp_path / "root2" / "a").write_text("x")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    (root / "dangling").symlink_to(tmp_path / "nothing")
    os.mkfifo(root / "fifo")
    downloader = await make_downloader(file_roots=(root,))
    for path in (
        f"{tmp_path}/secret",
        f"{tmp_path}/nothing",  # whether it exists is not told
        f"{tmp_path}/root2/a",
        f"{root}/../secret",
        f"{root}/%2e%2e/secret",
        f"{root}/..%2Fsecret",
        f"{root}/link",
        f"{root}/folder/secret",
        f"{root}/loop",
        f"{root}/dangling",
        f"{root}/fifo",
        f"{root}/",
        "/etc/passwd",
        "/dev/zero",
        "/proc/self/environ",
    ):
        with pytest.raises(JobError) as caught:
            await downloader.fetch(f"file://{path}")
        assert caught.value.error_class is ErrorClass.URL_FORBIDDEN, path


async def test_no_roots_no_files(root: Path, make_downloader: MakeDownloader) -> None:
    (root / "a").write_text("x")
    with pytest.raises(JobError) as caught:
        await (await make_downloader()).fetch((root / "a").as_uri())
    assert caught.value.error_class is ErrorClass.URL_FORBIDDEN


@pytest.mark.parametrize(
    ("path", "error_class"),
    [
        ("missing.wav", ErrorClass.NOT_FOUND),
        ("small/x.wav", ErrorClass.NOT_FOUND),
        ("large", ErrorClass.TOO_LARGE),
        ("n" * 300, ErrorClass.NOT_FOUND),
    ],
)
async def test_fates(path: str, error_class: ErrorClass, root: Path, make_downloader: MakeDownloader) -> None:
    (root / "small").write_text("x")
    (root / "large").write_bytes(b"x" * 101)
    downloader = await make_downloader(file_roots=(root,), max_bytes=100)
    with pytest.raises(JobError) as caught:
        await downloader.fetch((root / path).as_uri())
    assert caught.value.error_class is error_class
