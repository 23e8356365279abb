"""Objects read in parts: against a real MinIO, and a stand-in for what that will not do on demand."""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from tests.fetch.conftest import MakeDownloader, Serve, Server, answer
from v2td.config import S3Settings
from v2td.errors import ErrorClass, JobError, TransientJobError
from v2td.fetch.ranges import ATTEMPTS
from v2td.metrics import FETCHED_BYTES

PART_BYTES = 100_000
CONTENT = Random(7).randbytes(4 * PART_BYTES + 17)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
_RANGE = re.compile(r"range: bytes=([0-9]+)-([0-9]+)", re.IGNORECASE)

Fault = Callable[[asyncio.StreamWriter], Awaitable[None]]


def wanted(head: str) -> tuple[int, int] | None:
    """The range that a request asks for, its end exclusive."""
    match = _RANGE.search(head)
    return (int(match[1]), int(match[2]) + 1) if match else None


@dataclass
class Store:
    """Serves CONTENT in ranges; `faults` has, by the start of a range, what is answered there instead, in order."""

    etag: str = '"one"'
    faults: dict[int, list[bytes | Fault]] = field(default_factory=dict)
    server: Server = field(init=False)

    def part(
        self, start: int, end: int, *, etag: str = "", size: int = len(CONTENT), body: bytes | None = None
    ) -> bytes:
        end = min(end, len(CONTENT))
        content = CONTENT[start:end] if body is None else body
        content_range = f"bytes {start}-{end - 1}/{size}"
        length = str(end - start)
        return answer(
            "206 Partial Content", content, content_range=content_range, etag=etag or self.etag, content_length=length
        )

    async def talk(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found = wanted(self.server.requests[-1])
        assert found is not None
        fault = self.faults.get(found[0], [])
        step = fault.pop(0) if fault else self.part(*found)
        if not isinstance(step, bytes):
            return await step(writer)
        writer.write(step)
        await writer.drain()
        return None

    def ranges(self) -> list[tuple[int, int] | None]:
        return sorted(map(wanted, self.server.requests), key=str)


@pytest.fixture
async def store(serve: Serve) -> Store:
    store = Store()
    store.server = await serve(store.talk)
    return store


@pytest.fixture
def settings(settings: S3Settings) -> S3Settings:
    return settings.model_copy(update={"part_bytes": PART_BYTES})


def parted(server: Server, **values: object) -> S3Settings:
    keys = {"endpoint_url": server.url(""), "access_key": "key", "secret_key": "secret", "part_bytes": PART_BYTES}
    return S3Settings.model_validate(keys | values)


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, len(CONTENT)])
@pytest.mark.parametrize("parts", [1, 2, 16])
async def test_every_size(
    size: int, parts: int, settings: S3Settings, bucket: str, make_downloader: MakeDownloader
) -> None:
    downloader = await make_downloader(s3=settings.model_copy(update={"parts": parts}))
    client = await downloader.store.client(bucket)
    await client.put_object(Bucket=bucket, Key="a.wav", Body=CONTENT[:size])
    before = FETCHED_BYTES.labels("s3")._value.get()
    audio = await downloader.fetch(f"s3://{bucket}/a.wav")
    assert audio.path.read_bytes() == CONTENT[:size]
    assert (audio.size_bytes, audio.sha256) == (size, hashlib.sha256(CONTENT[:size]).hexdigest())
    assert FETCHED_BYTES.labels("s3")._value.get() - before == size


async def test_a_version_in_parts(settings: S3Settings, bucket: str, make_downloader: MakeDownloader) -> None:
    downloader = await make_downloader(s3=settings)
    client = await downloader.store.client(bucket)
    await client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    older = await client.put_object(Bucket=bucket, Key="a.wav", Body=CONTENT)
    await client.put_object(Bucket=bucket, Key="a.wav", Body=bytes(len(CONTENT)))
    assert (await downloader.fetch(f"s3://{bucket}/a.wav", older["VersionId"])).sha256 == DIGEST


async def test_parts_come_at_once(store: Store, make_downloader: MakeDownloader) -> None:
    """Nobody gets a body before four are being asked for, and the first part comes last."""
    others = asyncio.Event()

    async def last(writer: asyncio.StreamWriter) -> None:
        whole = store.part(0, PART_BYTES)
        writer.write(whole[:-PART_BYTES])
        await others.wait()
        writer.write(whole[-PART_BYTES:])

    async def together(writer: asyncio.StreamWriter, start: int) -> None:
        if len(store.server.requests) == 4:
            others.set()
        await others.wait()
        writer.write(store.part(start, start + PART_BYTES))

    store.faults[0] = [last]
    for number in (1, 2, 3):
        store.faults[number * PART_BYTES] = [lambda writer, start=number * PART_BYTES: together(writer, start)]  # type: ignore[misc]
    audio = await (await make_downloader(s3=parted(store.server))).fetch("s3://bucket/a.wav")
    assert audio.sha256 == DIGEST
    assert audio.path.read_bytes() == CONTENT


async def test_a_part_goes_on_where_it_broke_off(store: Store, make_downloader: MakeDownloader) -> None:
    """The first part as well, whose first request was the one that found out about the others."""
    store.faults = {
        0: [store.part(0, PART_BYTES, body=CONTENT[:30_000])],
        30_000: [answer("503 Slow Down", b"<Error><Code>SlowDown</Code></Error>")],
        2 * PART_BYTES: [store.part(2 * PART_BYTES, 3 * PART_BYTES, body=CONTENT[2 * PART_BYTES :][:70_000]), b""],
    }
    audio = await (await make_downloader(s3=parted(store.server))).fetch("s3://bucket/a.wav")
    assert audio.path.read_bytes() == CONTENT
    assert audio.sha256 == DIGEST
    ends = [(start, min(start + PART_BYTES, len(CONTENT))) for start in range(0, len(CONTENT), PART_BYTES)]
    again = [(30_000, PART_BYTES), (30_000, PART_BYTES), (270_000, 3 * PART_BYTES)]
    assert store.ranges() == sorted([*ends, *again], key=str)
    first, *rest = store.server.requests
    assert "if-match" not in first.lower()
    assert all('if-match: "one"' in request.lower() for request in rest)


async def test_a_part_has_its_attempts(
    store: Store, make_downloader: MakeDownloader, spooled: Callable[[], list[Path]]
) -> None:
    failing = answer("500 Internal Server Error")
    store.faults[PART_BYTES] = [failing] * 9
    with pytest.raises(TransientJobError, match="500"):
        await (await make_downloader(s3=parted(store.server))).fetch("s3://bucket/a.wav")
    assert sum(each is not None and each[0] == PART_BYTES for each in store.ranges()) == ATTEMPTS
    assert spooled() == []


OTHER = [
    answer("412 Precondition Failed", b"<Error><Code>PreconditionFailed</Code></Error>"),
    answer("200 OK", CONTENT, etag='"one"'),
    answer("206 Partial Content", CONTENT[:PART_BYTES], etag='"one"', content_range=f"bytes 0-99999/{len(CONTENT)}"),
    answer(
        "206 Partial Content", CONTENT[PART_BYTES:][:PART_BYTES], etag='"one"', content_range="bytes 100000-199999/*"
    ),
    answer(
        "206 Partial Content",
        CONTENT[PART_BYTES:][:PART_BYTES],
        etag='"two"',
        content_range=f"bytes 100000-199999/{len(CONTENT)}",
    ),
    answer(
        "206 Partial Content", CONTENT[PART_BYTES:][:PART_BYTES], etag='"one"', content_range="bytes 100000-199999/9"
    ),
    answer("206 Partial Content", CONTENT[PART_BYTES:][:PART_BYTES], etag='"one"', content_range="nonsense"),
]


@pytest.mark.parametrize("other", OTHER)
async def test_parts_of_another_object_are_not_taken(
    other: bytes, store: Store, make_downloader: MakeDownloader, spooled: Callable[[], list[Path]]
) -> None:
    store.faults[PART_BYTES] = [other]
    with pytest.raises(TransientJobError, match="the object changed while it was read"):
        await (await make_downloader(s3=parted(store.server))).fetch("s3://bucket/a.wav")
    assert spooled() == []
    assert sum(each is not None and each[0] == PART_BYTES for each in store.ranges()) == 1


async def test_more_than_a_part_is_not_taken(store: Store, make_downloader: MakeDownloader) -> None:
    start, end = 4 * PART_BYTES, len(CONTENT)
    head = store.part(start, end, body=b"").replace(b"content-length: 17\r\n", b"")
    store.faults[start] = [head + CONTENT[start:] + b"more"]
    with pytest.raises(TransientJobError, match="more bytes than it said"):
        await (await make_downloader(s3=parted(store.server))).fetch("s3://bucket/a.wav")


async def test_too_large_by_its_first_answer(store: Store, make_downloader: MakeDownloader) -> None:
    with pytest.raises(JobError) as caught:
        await (await make_downloader(s3=parted(store.server), max_bytes=len(CONTENT) - 1)).fetch("s3://bucket/a.wav")
    assert caught.value.error_class is ErrorClass.TOO_LARGE
    assert len(store.server.requests) == 1


@pytest.mark.parametrize(
    "first",
    [
        answer(body=CONTENT),
        answer("206 Partial Content", CONTENT[:PART_BYTES], content_range=f"bytes 0-99999/{len(CONTENT)}"),
        answer("206 Partial Content", CONTENT[:PART_BYTES], content_range="bytes 0-99999/400017", etag='W/"one"'),
        answer("206 Partial Content", CONTENT[:PART_BYTES], content_range="bytes 5-1/400017", etag='"one"'),
    ],
    ids=["no ranges", "no ETag", "a weak ETag", "nonsense"],
)
async def test_in_one_piece(first: bytes, serve: Serve, make_downloader: MakeDownloader) -> None:
    """Where a server sends no parts, or nothing tells whether two belong together."""
    server = await serve(first, answer(body=CONTENT))
    audio = await (await make_downloader(s3=parted(server))).fetch("s3://bucket/a.wav")
    assert audio.sha256 == DIGEST
    assert [wanted(head) for head in server.requests] == [(0, PART_BYTES), None][: len(server.requests)]


async def test_the_whole_has_its_time(
    store: Store, make_downloader: MakeDownloader, spooled: Callable[[], list[Path]]
) -> None:
    async def silent(_: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    store.faults[2 * PART_BYTES] = [silent]
    limits = {"total_seconds": 1, "connect_seconds": 1, "read_seconds": 1}
    with pytest.raises(TransientJobError, match=r"fetch\.total_seconds"):
        await (await make_downloader(s3=parted(store.server), **limits)).fetch("s3://bucket/a.wav")
    assert spooled() == []


async def test_cancelled(store: Store, make_downloader: MakeDownloader, spooled: Callable[[], list[Path]]) -> None:
    asked = asyncio.Event()

    async def silent(_: asyncio.StreamWriter) -> None:
        asked.set()
        await asyncio.sleep(3600)

    store.faults[2 * PART_BYTES] = [silent]
    downloader = await make_downloader(s3=parted(store.server))
    before = asyncio.all_tasks()
    fetching = asyncio.create_task(downloader.fetch("s3://bucket/a.wav"))
    await asked.wait()
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert spooled() == []
    left = {str(task.get_coro()) for task in asyncio.all_tasks() - before}
    assert not [each for each in left if "RangedTransfer" in each or "_digest" in each]


async def test_a_url_outlives_the_download(serve: Serve, make_downloader: MakeDownloader) -> None:
    """Parts are asked for as time goes by, all with the signature that was made at the start."""
    server = await serve(answer(body=b"RIFF"))
    downloader = await make_downloader(s3=parted(server, presign_seconds=5), total_seconds=77.5)
    await downloader.fetch("s3://bucket/a.wav")
    assert "X-Amz-Expires=78&" in server.requests[0]
