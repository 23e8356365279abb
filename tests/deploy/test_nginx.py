"""docs/deploy/nginx.conf for real: the seed's numbers, signatures that hold, and a server that dies under load."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import aiohttp
import pytest

from tests.deploy.conftest import BUCKET, CONFIGURATION, Front
from tests.services import nginx
from tests.services.versitygw import Gateways
from v2td.config import FetchSettings
from v2td.errors import TransientJobError
from v2td.fetch import Downloader, ObjectStore
from v2td.fetch.uploads import InMemory, Parts, put
from v2td.fetch.urls import S3Source

SIZES = (3, 70_000, 6_000_000)
ROUNDS = 150
ATTEMPTS = 3  # pipeline.attempts
PART = 5_242_880

Result = TypeVar("Result")


def content(number: int) -> bytes:
    return random.Random(number).randbytes(SIZES[number % len(SIZES)])


def test_it_is_the_seeds() -> None:
    """Every directive of the seed with its value; only names differ, and what makes signatures hold is added."""
    text = CONFIGURATION.read_text(encoding="utf-8")
    told = {" ".join(line.split()) for line in re.sub(r"#.*", "", text).replace(";", ";\n").splitlines()}
    for directive in (
        "least_conn;",
        "keepalive 32;",
        "listen 9000;",
        "client_body_buffer_size 16M;",
        "client_max_body_size 5G;",
        "proxy_connect_timeout 300s;",
        "proxy_send_timeout 300s;",
        "proxy_read_timeout 300s;",
        "keepalive_timeout 65;",
        "keepalive_requests 100;",
        "proxy_pass http://minio_backend;",
        "proxy_http_version 1.1;",
        'proxy_set_header Connection "";',
        "proxy_set_header Host $http_host;",
        "proxy_buffering off;",
        "proxy_request_buffering off;",
    ):
        assert directive in told
    assert len(re.findall(r"server minio\d\.example\.com:9000 max_fails=1 fail_timeout=10s;", text)) == 3


async def test_without_the_host_signatures_fail(gateways: Gateways, tmp_path: Path) -> None:
    folder = tmp_path / "nginx"
    folder.mkdir()
    text, left_out = re.subn(r".*proxy_set_header Host.*\n", "", CONFIGURATION.read_text(encoding="utf-8"))
    assert left_out == 1
    async with nginx.running(text, folder, gateways.ports) as url:
        statuses = [
            await presigned_status(Front(each, gateways)) for each in (url, f"http://127.0.0.1:{gateways.ports[0]}")
        ]
    assert statuses == [403, 404]


async def test_with_the_host_they_hold(front: Front) -> None:
    assert await presigned_status(front) == 404


async def presigned_status(front: Front) -> int:
    async with ObjectStore(front.settings()) as store, aiohttp.ClientSession() as session:
        url = await store.presign(S3Source(BUCKET, "nothing here?"))
        async with session.get(url) as answer:
            return answer.status


@asynccontextmanager
async def downloader(front: Front, folder: Path) -> AsyncIterator[Downloader]:
    async with Downloader(FetchSettings(spool_dir=folder), front.settings(part_bytes=2_000_000, parts=2)) as found:
        yield found


@pytest.mark.slow
async def test_a_server_dies_under_load_and_no_request_fails_for_good(front: Front, tmp_path: Path) -> None:
    """Presigned downloads in parts and uploads in parts, by what the daemon uses; one server is killed on the way."""
    again = 0

    async def tried(work: Callable[[], Awaitable[Result]]) -> Result:
        """As the pipeline tries a job, without the pause."""
        nonlocal again
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await work()
            except (TransientJobError, aiohttp.ClientError, OSError):
                if attempt == ATTEMPTS:
                    raise
                again += 1
        raise AssertionError

    spool = tmp_path / "spool"
    spool.mkdir()
    async with downloader(front, spool) as fetching, ObjectStore(front.settings()) as store:
        s3 = await store.client(BUCKET)
        places = asyncio.Semaphore(12)
        done = 0
        half = asyncio.Event()

        async def round_trip(number: int) -> None:
            nonlocal done
            sent = content(number)
            key = f"folder {number % 7}/object+{number}.bin"
            async with places:
                await tried(lambda: put(s3, BUCKET, key, InMemory(sent), Parts(PART, 2)))
                audio = await tried(lambda: fetching.fetch(f"s3://{BUCKET}/{key}"))
            assert audio.sha256 == hashlib.sha256(sent).hexdigest()
            fetching.discard(audio)
            done += 1
            if done == ROUNDS // 2:
                half.set()

        async with asyncio.TaskGroup() as group:
            for number in range(ROUNDS):
                group.create_task(round_trip(number))
            await half.wait()
            served = [log.read_text().count(BUCKET) for log in map(front.gateways.log, front.gateways.ports)]
            front.gateways.kill(front.gateways.ports[0])
    assert done == ROUNDS
    assert min(served) > ROUNDS / 10  # both had their share
    after = front.gateways.log(front.gateways.ports[1]).read_text().count(BUCKET)
    assert after > served[1] + ROUNDS / 2  # the other took all
    print(f"{again} of {2 * ROUNDS} operations were tried once more; served before the kill: {served}")
