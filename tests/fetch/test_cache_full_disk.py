"""The cache of files on the disk of the spool, which is full of what is kept."""

import asyncio
import errno
import os
from io import FileIO
from pathlib import Path

import pytest

from tests.fetch.conftest import MakeDownloader, Serve, answer
from v2td.errors import NoRoomError
from v2td.fetch.kept import KeptFiles, Sums
from v2td.fetch.validators import Validator

CACHE = {"file_bytes": 1_000_000, "file_admission": "first"}
DISK_BYTES = 3000
FILE_BYTES = 800


async def test_what_is_kept_makes_room(
    serve: Serve, make_downloader: MakeDownloader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else would: the jobs that wait for room would wait for ever."""
    spool, kept = tmp_path / "spool", tmp_path / "spool" / "v2td-files" / "files"

    class Spooled(FileIO):
        """A file on a disk that has little room; a link takes none."""

        def write(self, chunk: bytes | memoryview) -> int:  # type: ignore[override]
            there = [each.stat() for each in (*spool.glob("v2td-spool-*/*"), *kept.iterdir())]
            files = {each.st_ino: each.st_size for each in there}
            if sum(files.values()) + len(chunk) > DISK_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(chunk)

    monkeypatch.setattr("v2td.fetch.spool.FileIO", Spooled)
    server = await serve(answer(body=b"R" * FILE_BYTES, etag='"1"'))
    downloader = await make_downloader(cache=CACHE, spool_dir=spool)
    for number in range(3):
        downloader.discard(await downloader.fetch(server.url(f"/{number}")))
    with pytest.raises(NoRoomError):
        await downloader.fetch(server.url("/3"))
    assert len(list(kept.iterdir())) == 1  # the newest
    downloader.discard(await downloader.fetch(server.url("/3")))
    assert len(list(kept.iterdir())) == 2

    with pytest.raises(NoRoomError), downloader.incoming() as upload:  # who sends it is told to come again
        upload.write(b"R" * 2 * FILE_BYTES)
    async with asyncio.timeout(20):
        while len(list(kept.iterdir())) == 2:
            await asyncio.sleep(0.01)
    with downloader.incoming() as upload:
        upload.write(b"R" * 2 * FILE_BYTES)


def test_only_the_disk_that_is_full_is_given_way_on(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    path.write_bytes(b"R" * FILE_BYTES)
    with KeptFiles(tmp_path / "cache", 10 * FILE_BYTES, FILE_BYTES, "first") as files:
        files.keep("a", path, FILE_BYTES, "00", Validator('"1"', "place"))
        assert files.make_room(Path("/proc")) is None
        assert files.sums() == Sums(1, FILE_BYTES)
        assert files.make_room(tmp_path) == Sums(0, 0, 1)
        assert files.take("a", tmp_path / "taken", FILE_BYTES) is None
