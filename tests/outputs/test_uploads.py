"""Uploads in parts: whole or not there, and nothing left at the server of what failed."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from tests.outputs.conftest import Proxy, s3_settings
from tests.services import minio
from tests.services.state import Services
from v2td.fetch import ObjectStore
from v2td.fetch.uploads import MAX_PARTS, MIN_PART_BYTES, InMemory, OpenFile, Parts, put

PART = MIN_PART_BYTES
CONTENT = secrets.token_bytes(3 * PART + 17)
PARTS = Parts(PART, 2)


@pytest.fixture
async def s3(services: Services) -> AsyncIterator[Any]:
    async with minio.client(services.s3_endpoint, services.s3_access_key, services.s3_secret_key) as client:
        yield client


@pytest.fixture
async def client(services: Services, bucket: str, proxy: Proxy) -> AsyncIterator[Any]:
    async with ObjectStore(s3_settings(services, endpoint_url=proxy.url)) as store:
        yield await store.client(bucket)


async def stored(s3: Any, bucket: str) -> bytes:
    return bytes(await (await s3.get_object(Bucket=bucket, Key="key"))["Body"].read())


async def begun(s3: Any, bucket: str) -> list[Any]:
    # MinIO lists the uploads of one key only.
    return list((await s3.list_multipart_uploads(Bucket=bucket, Prefix="key")).get("Uploads", ()))


async def test_parts_side_by_side_are_the_whole(client: Any, s3: Any, bucket: str, proxy: Proxy) -> None:
    await put(client, bucket, "key", InMemory(CONTENT), PARTS, ContentType="text/plain")
    assert await stored(s3, bucket) == CONTENT
    assert proxy.most_at_once == 2
    assert proxy.seen.count("PUT partNumber uploadId") == 4


async def test_small_ones_go_up_in_one_piece(client: Any, s3: Any, bucket: str, proxy: Proxy) -> None:
    await put(client, bucket, "key", InMemory(CONTENT[:PART]), PARTS)
    assert await stored(s3, bucket) == CONTENT[:PART]
    assert proxy.seen == ["PUT"]


async def test_nothing_is_something(client: Any, s3: Any, bucket: str) -> None:
    await put(client, bucket, "key", InMemory(b""), PARTS)
    assert await stored(s3, bucket) == b""


async def test_a_file_goes_up_as_it_is(client: Any, s3: Any, bucket: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    with OpenFile(file) as content:
        await put(client, bucket, "key", content, PARTS)
    assert await stored(s3, bucket) == CONTENT


async def test_submit_sends_large_files_in_parts(
    services: Services, s3: Any, bucket: str, proxy: Proxy, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    async with ObjectStore(s3_settings(services, endpoint_url=proxy.url, part_bytes=1, parts=2)) as store:
        await store.upload(file, bucket, "key")
    assert await stored(s3, bucket) == CONTENT
    assert proxy.seen.count("PUT partNumber uploadId") == 4  # of what the server takes at least


async def test_a_file_that_shrinks_is_an_error_and_leaves_nothing(
    client: Any, s3: Any, bucket: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    with OpenFile(file) as content:
        file.write_bytes(CONTENT[:-1])
        with pytest.raises(OSError, match="has changed"):
            await put(client, bucket, "key", content, PARTS)
    assert await begun(s3, bucket) == []


async def test_a_lost_part_fails_the_upload_and_leaves_what_was_there(
    client: Any, s3: Any, bucket: str, proxy: Proxy
) -> None:
    async def lost(request: web.Request) -> web.Response | None:
        return web.Response(status=500) if request.query.get("partNumber") == "3" else None

    await put(client, bucket, "key", InMemory(b"as before"), PARTS)
    proxy.before = lost
    with pytest.raises(ClientError):
        await put(client, bucket, "key", InMemory(CONTENT), PARTS)
    assert await stored(s3, bucket) == b"as before"
    assert await begun(s3, bucket) == []
    assert proxy.seen[-1] == "DELETE uploadId"


async def test_a_cancelled_upload_leaves_nothing(client: Any, s3: Any, bucket: str, proxy: Proxy) -> None:
    hanging = asyncio.Event()

    async def hangs(request: web.Request) -> web.Response | None:
        if request.query.get("partNumber") == "2":
            hanging.set()
            await asyncio.Event().wait()
        return None

    proxy.before = hangs
    upload = asyncio.create_task(put(client, bucket, "key", InMemory(CONTENT), PARTS))
    await hanging.wait()
    assert len(await begun(s3, bucket)) == 1
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert await begun(s3, bucket) == []


async def test_why_it_failed_survives_an_abort_that_fails(client: Any, bucket: str, proxy: Proxy) -> None:
    async def lost(request: web.Request) -> web.Response | None:
        if request.method == "DELETE":
            return web.Response(status=403)
        return web.Response(status=400) if request.query.get("partNumber") == "1" else None

    proxy.before = lost
    with pytest.raises(ClientError) as caught:
        await put(client, bucket, "key", InMemory(CONTENT), PARTS)
    assert caught.value.operation_name == "UploadPart"


@given(st.integers(1, 6 * 1024**4), st.integers(PART, 1024**3))
def test_parts_cover_the_whole_within_the_servers_limit(size: int, each: int) -> None:
    parts = Parts(each, 4).of(size)
    assert len(parts) <= MAX_PARTS
    assert parts[0][0] == 0
    assert all(start + length == following for (start, length), (following, _) in pairwise(parts))
    assert sum(parts[-1]) == size
    assert all(length >= each for _, length in parts[:-1])
