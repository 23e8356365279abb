"""A download from beginning to end, cut short, and without room."""

import asyncio
import hashlib
import resource
import signal
import stat
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from pathlib import Path

import pytest

from tests.fetch.conftest import MakeDownloader, Serve, answer
from tests.fetch.fates import BODY, Spooled
from v2td.errors import ServiceError
from v2td.metrics import FETCHED_BYTES


async def test_download(serve: Serve, make_downloader: MakeDownloader, spooled: Spooled) -> None:
    server = await serve(answer(body=BODY))
    downloader = await make_downloader()
    counter = FETCHED_BYTES.labels("http")
    before = counter._value.get()
    audio = await downloader.fetch(server.url("/../x=1;y%2F.wav?sig=%2B"))
    assert audio.path.read_bytes() == BODY
    assert audio.size_bytes == len(BODY)
    assert audio.sha256 == hashlib.sha256(BODY).hexdigest()
    assert audio.temporary
    assert stat.S_IMODE(audio.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(audio.path.parent.stat().st_mode) == 0o700
    assert counter._value.get() - before == len(BODY)
    head = server.requests[0].lower()
    assert head.startswith("get /../x=1;y%2f.wav?sig=%2b http/1.1")
    assert "accept-encoding: identity" in head
    assert "cookie" not in head
    downloader.discard(audio)
    downloader.discard(audio)
    assert not spooled()


async def test_what_was_not_discarded_goes_with_the_downloader(
    serve: Serve, make_downloader: MakeDownloader, tmp_path: Path
) -> None:
    server = await serve(answer(body=b"abc"))
    async with await make_downloader(spool_dir=tmp_path / "other") as downloader:
        audio = await downloader.fetch(server.url())
        assert audio.path.exists()
    assert not list((tmp_path / "other").iterdir())


async def test_concurrency_is_bounded(serve: Serve, make_downloader: MakeDownloader) -> None:
    now, most = 0, 0

    async def slow(_: Reader, writer: Writer) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.05)
        now -= 1
        writer.write(answer(body=b"x"))

    server = await serve(slow)
    downloader = await make_downloader(concurrency=3)
    await asyncio.gather(*(downloader.fetch(server.url()) for _ in range(9)))
    assert most == 3


async def test_cancellation_leaves_no_file(serve: Serve, make_downloader: MakeDownloader, spooled: Spooled) -> None:
    sent = asyncio.Event()

    async def half(_: Reader, writer: Writer) -> None:
        writer.write(answer(content_length="1000", body=b"x" * 500))
        await writer.drain()
        sent.set()
        await asyncio.sleep(30)

    server = await serve(half)
    downloader = await make_downloader(read_seconds=30, concurrency=1)
    task = asyncio.create_task(downloader.fetch(server.url()))
    await sent.wait()
    await asyncio.sleep(0.1)
    assert [path.stat().st_size for path in spooled()] == [500]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not spooled()
    other = await serve(answer(body=b"next"))
    assert (await downloader.fetch(other.url())).size_bytes == 4  # its place is free again


async def test_full_disk_is_not_the_jobs_fault(serve: Serve, make_downloader: MakeDownloader, spooled: Spooled) -> None:
    server = await serve(answer(body=BODY))
    downloader = await make_downloader()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(ServiceError, match="spool_dir"):
            await downloader.fetch(server.url())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert not spooled()
