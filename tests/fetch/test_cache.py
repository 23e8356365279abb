"""Downloads that are spared, and those that are not: a server that changes its mind, and a real MinIO."""

import asyncio
import contextlib
import hashlib
import re
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from tests.fetch.conftest import MakeDownloader, Serve, Server, answer
from v2td.config import S3Settings
from v2td.errors import ErrorClass, JobError, ServiceError
from v2td.fetch import Downloader
from v2td.jobs import Audio
from v2td.metrics import (
    FETCHED_BYTES,
    FILE_CACHE,
    FILE_CACHE_BYTES,
    FILE_CACHE_EVICTIONS,
    FILE_CACHE_HIT_BYTES,
)

FIRST = {"file_bytes": 1_000_000, "file_admission": "first"}
NOT_MODIFIED = answer("304 Not Modified")


@dataclass
class Site:
    """Serves `content` under a strong ETag, and answers conditions on it."""

    content: bytes = b"RIFF one"
    headers: dict[str, str] = field(default_factory=dict)
    server: Server = field(init=False)

    async def talk(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        etag = f'"{hashlib.sha256(self.content).hexdigest()}"'
        asked = re.search(r"if-none-match: (.*)\r", self.server.requests[-1], re.IGNORECASE)
        if asked and asked[1] == etag:
            writer.write(NOT_MODIFIED)
        else:
            writer.write(answer(body=self.content, **{"etag": etag} | self.headers))
        await writer.drain()


@pytest.fixture
async def site(serve: Serve) -> Site:
    site = Site()
    site.server = await serve(site.talk)
    return site


def found() -> dict[str, float]:
    return {label: FILE_CACHE.labels(label)._value.get() for label in ("hit", "stale", "none")}


@pytest.fixture
def counted() -> Callable[[], dict[str, float]]:
    """How downloads went since the last time it was asked."""
    before = [found()]

    def since() -> dict[str, float]:
        now = found()
        earlier, before[0] = before[0], now
        return {label: now[label] - earlier[label] for label in now if now[label] != earlier[label]}

    return since


async def contents(downloader: Downloader, url: str, version_id: str | None = None) -> bytes:
    """What a job sees, and leaves behind."""
    audio = await downloader.fetch(url, version_id)
    content = audio.path.read_bytes()
    assert audio == Audio(audio.path, len(content), hashlib.sha256(content).hexdigest(), temporary=True)
    assert audio.path.parent in downloader.folders
    downloader.discard(audio)
    assert not audio.path.exists()
    return content


def kept(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.glob("**/files/*")]


async def test_what_has_not_changed_comes_from_the_disk(
    site: Site, make_downloader: MakeDownloader, counted: Callable[[], dict[str, float]], tmp_path: Path
) -> None:
    downloader = await make_downloader(cache=FIRST)
    fetched, spared = FETCHED_BYTES.labels("http"), FILE_CACHE_HIT_BYTES
    before = fetched._value.get(), spared._value.get()
    for _ in range(3):
        assert await contents(downloader, site.server.url()) == b"RIFF one"
    assert counted() == {"none": 1, "hit": 2}
    assert (fetched._value.get() - before[0], spared._value.get() - before[1]) == (8, 16)
    assert kept(tmp_path / "spool" / "v2td-files") == [b"RIFF one"]
    assert FILE_CACHE_BYTES._value.get() == 8
    assert len(site.server.requests) == 3  # the server was asked each time
    assert "if-none-match" not in site.server.requests[0].lower()

    site.content = b"RIFF another"
    assert await contents(downloader, site.server.url()) == b"RIFF another"
    assert await contents(downloader, site.server.url()) == b"RIFF another"
    assert counted() == {"stale": 1, "hit": 1}
    assert kept(tmp_path) == [b"RIFF another"]


async def test_off_by_default(
    site: Site, make_downloader: MakeDownloader, counted: Callable[[], dict[str, float]], tmp_path: Path
) -> None:
    downloader = await make_downloader()
    for _ in range(2):
        await contents(downloader, site.server.url())
    assert counted() == {}
    assert not (tmp_path / "spool" / "v2td-files").exists()


async def test_the_second_request_is_kept(
    site: Site, make_downloader: MakeDownloader, counted: Callable[[], dict[str, float]]
) -> None:
    downloader = await make_downloader(cache={"file_bytes": 1_000_000})
    for _ in range(3):
        await contents(downloader, site.server.url())
    assert counted() == {"none": 2, "hit": 1}


async def test_another_daemon_has_use_of_it(
    site: Site, make_downloader: MakeDownloader, counted: Callable[[], dict[str, float]], tmp_path: Path
) -> None:
    cache = FIRST | {"file_dir": tmp_path / "shared"}
    one, two = [await make_downloader(cache=cache, spool_dir=tmp_path / name) for name in ("one", "two")]
    assert await contents(one, site.server.url()) == await contents(two, site.server.url())
    assert counted() == {"none": 1, "hit": 1}


async def test_room_is_made(site: Site, make_downloader: MakeDownloader, tmp_path: Path) -> None:
    downloader = await make_downloader(cache={**FIRST, "file_bytes": 20, "file_max_bytes": 8})
    before = FILE_CACHE_EVICTIONS._value.get()
    for path in ("/a", "/b", "/c"):
        await contents(downloader, site.server.url(path))
    site.content = b"RIFF too large"
    await contents(downloader, site.server.url("/d"))
    assert len(kept(tmp_path)) == 2
    assert FILE_CACHE_EVICTIONS._value.get() - before == 1


@pytest.mark.parametrize(
    "headers", [{"etag": 'W/"1"'}, {"etag": ""}, {"cache_control": "no-store"}, {"vary": "*"}], ids=str
)
async def test_what_the_server_does_not_vouch_for_is_not_kept(
    headers: dict[str, str], site: Site, make_downloader: MakeDownloader, tmp_path: Path
) -> None:
    site.headers = headers
    downloader = await make_downloader(cache=FIRST)
    for _ in range(2):
        await contents(downloader, site.server.url())
    assert kept(tmp_path) == []
    assert "if-none-match" not in site.server.requests[1].lower()


async def test_private_sources_are_not_kept(
    site: Site, make_downloader: MakeDownloader, counted: Callable[[], dict[str, float]], tmp_path: Path
) -> None:
    host = {"pattern": "127.0.0.1", "scheme": "http", "port": site.server.port, "bearer_token": "canary"}
    downloader = await make_downloader(cache=FIRST, hosts=[host])
    for _ in range(2):
        await contents(downloader, site.server.url())
    assert kept(tmp_path) == []
    assert counted() == {}


async def test_an_etag_is_of_one_place(serve: Serve, make_downloader: MakeDownloader) -> None:
    """Where a redirect leads elsewhere than before, the same ETag may stand for other bytes."""
    old, new = await serve(answer(body=b"old", etag='"1"')), await serve(answer(body=b"new", etag='"1"'))
    moved = [answer("302 Found", location=server.url()) for server in (old, old, new)]
    start = await serve(*moved)
    downloader = await make_downloader(cache=FIRST)
    assert [await contents(downloader, start.url()) for _ in moved] == [b"old", b"old", b"new"]
    assert ["if-none-match" in request.lower() for request in old.requests] == [False, True]
    assert "if-none-match" not in new.requests[0].lower()
    assert all("if-none-match" not in request.lower() for request in start.requests)


async def test_what_is_gone_is_gone(
    serve: Serve, make_downloader: MakeDownloader, spooled: Callable[[], list[Path]], tmp_path: Path
) -> None:
    """Nothing is served from the disk when the server says something else, or nothing."""
    server = await serve(answer(body=b"RIFF", etag='"1"'), answer("404 Not Found"), answer("403 Forbidden"), b"")
    downloader = await make_downloader(cache=FIRST | {"file_dir": tmp_path / "kept"})
    await contents(downloader, server.url())
    for error_class in (ErrorClass.NOT_FOUND, ErrorClass.ACCESS_DENIED, ErrorClass.HTTP_ERROR):
        with pytest.raises(JobError) as caught:
            await downloader.fetch(server.url())
        assert caught.value.error_class is error_class
        assert spooled() == []


async def test_nobody_may_say_304_unasked(serve: Serve, make_downloader: MakeDownloader) -> None:
    server = await serve(NOT_MODIFIED)
    for cache in ({}, FIRST):
        with pytest.raises(JobError, match="304"):
            await (await make_downloader(cache=cache)).fetch(server.url())


async def test_a_smaller_limit_counts_for_what_is_kept(site: Site, make_downloader: MakeDownloader) -> None:
    await contents(await make_downloader(cache=FIRST), site.server.url())
    strict = await make_downloader(cache=FIRST, max_bytes=7)
    with pytest.raises(JobError) as caught:
        await strict.fetch(site.server.url())
    assert caught.value.error_class is ErrorClass.TOO_LARGE


async def test_cancelled_at_any_moment(
    site: Site, make_downloader: MakeDownloader, spooled: Callable[[], list[Path]], tmp_path: Path
) -> None:
    """A hit is cancelled after one step of the loop, after two, …; what its threads leave goes, too."""
    downloader = await make_downloader(cache=FIRST | {"file_dir": tmp_path / "kept"})
    await contents(downloader, site.server.url())
    ended = 0
    for steps in range(400):
        fetching = asyncio.create_task(downloader.fetch(site.server.url()))
        for _ in range(steps):
            await asyncio.sleep(0)
        fetching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            downloader.discard(await fetching)
            ended += 1
    async with asyncio.timeout(10):
        while spooled():  # threads cannot be cancelled
            await asyncio.sleep(0.01)
    assert kept(tmp_path) == [b"RIFF one"]
    assert ended < 400


async def test_a_cache_in_trouble_is_no_trouble_for_jobs(
    site: Site, make_downloader: MakeDownloader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody sits on its index, then somebody removes it from under the daemon."""
    monkeypatch.setattr("v2td.fetch.kept.BUSY_SECONDS", 0.05)
    folder = tmp_path / "kept"
    downloader = await make_downloader(cache=FIRST | {"file_dir": folder})
    with contextlib.closing(sqlite3.connect(folder / "index.db", isolation_level=None)) as index, capture_logs() as log:
        index.execute("BEGIN IMMEDIATE")
        assert await contents(downloader, site.server.url()) == b"RIFF one"
        assert kept(tmp_path) == []
    assert [entry["error"] for entry in log] == ["OperationalError: database is locked"]
    assert await contents(downloader, site.server.url()) == b"RIFF one"
    assert kept(tmp_path) == [b"RIFF one"]
    shutil.rmtree(folder)
    with capture_logs() as log:
        assert await contents(downloader, site.server.url()) == b"RIFF one"
    assert [entry["log_level"] for entry in log] == ["warning"]
    assert "127.0.0.1" not in str(log)


async def test_an_unusable_folder(make_downloader: MakeDownloader, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServiceError, match=r"set cache\.file_dir"):
        await make_downloader(cache=FIRST | {"file_dir": tmp_path / "file"})


async def test_addresses_are_not_written_down(site: Site, make_downloader: MakeDownloader, tmp_path: Path) -> None:
    """Query strings hold tokens."""
    downloader = await make_downloader(cache=FIRST)
    for _ in range(2):
        await contents(downloader, site.server.url("/canary.wav?token=canary"))
    assert len(kept(tmp_path)) == 1
    for path in (tmp_path / "spool" / "v2td-files").rglob("*"):
        assert "canary" not in path.name
        assert not path.is_file() or b"canary" not in path.read_bytes()


@pytest.fixture
def settings(settings: S3Settings) -> S3Settings:
    return settings.model_copy(update={"part_bytes": 100_000})


@pytest.mark.parametrize("size", [0, 1000, 250_000])
async def test_objects(
    size: int,
    settings: S3Settings,
    bucket: str,
    make_downloader: MakeDownloader,
    counted: Callable[[], dict[str, float]],
) -> None:
    """In one piece or in parts; every request has another signature."""
    downloader = await make_downloader(s3=settings, cache=FIRST)
    client = await downloader.store.client(bucket)
    url = f"s3://{bucket}/a.wav"
    for content in (b"1" * size, b"2" * (size + 1)):
        await client.put_object(Bucket=bucket, Key="a.wav", Body=content)
        assert await contents(downloader, url) == content
        assert await contents(downloader, url) == content
    assert counted() == {"none": 1, "hit": 2, "stale": 1}
    await client.delete_object(Bucket=bucket, Key="a.wav")
    with pytest.raises(JobError) as caught:
        await downloader.fetch(url)
    assert caught.value.error_class is ErrorClass.NOT_FOUND
    stranger = await make_downloader(s3=settings.model_copy(update={"secret_key": SecretStr("no")}), cache=FIRST)
    await client.put_object(Bucket=bucket, Key="a.wav", Body=content)
    with pytest.raises(JobError) as caught:
        await stranger.fetch(url)
    assert caught.value.error_class is ErrorClass.ACCESS_DENIED


async def test_versions_are_kept_apart(
    settings: S3Settings, bucket: str, make_downloader: MakeDownloader, counted: Callable[[], dict[str, float]]
) -> None:
    downloader = await make_downloader(s3=settings, cache=FIRST)
    client = await downloader.store.client(bucket)
    await client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    puts = [await client.put_object(Bucket=bucket, Key="a.wav", Body=body) for body in (b"first", b"second")]
    for _ in range(2):
        for put, content in zip(puts, (b"first", b"second"), strict=True):
            assert await contents(downloader, f"s3://{bucket}/a.wav", put["VersionId"]) == content
        assert await contents(downloader, f"s3://{bucket}/a.wav") == b"second"
    assert counted() == {"none": 3, "hit": 3}
