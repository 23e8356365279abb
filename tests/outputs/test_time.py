"""Servers that keep a file's upload waiting for ever, which the client itself does not mind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from tests.outputs.conftest import transcript
from v2td import metrics
from v2td.config import OutputSettings, S3Settings
from v2td.errors import ErrorClass, TransientJobError
from v2td.fetch import ObjectStore
from v2td.outputs import Outputs, outputs

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def says_nothing(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def takes_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    await asyncio.Event().wait()


async def trickles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    tasks: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await serve(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=1024)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()


@pytest.mark.parametrize(
    ("serve", "segments", "part_bytes"),
    [
        (says_nothing, 1, 67_108_864),
        (takes_nothing, 100_000, 67_108_864),
        (trickles, 1, 67_108_864),
        (trickles, 100_000, 5_242_880),
    ],
    ids=["says nothing", "takes nothing", "trickles", "trickles before the parts"],
)
async def test_a_file_takes_no_longer_than_it_may(
    serve: Serve, segments: int, part_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "FILE_SECONDS", 0.5)
    monkeypatch.setattr(outputs, "MIN_BYTES_PER_SECOND", 1e12)
    failed_before = metrics.OUTPUTS.labels("failed")._value.get()
    async with serving(serve) as url:
        settings = S3Settings(endpoint_url=url, access_key="key", secret_key=SecretStr("secret"))
        async with ObjectStore(settings) as store:
            writes = Outputs(OutputSettings(formats=("json",), part_bytes=part_bytes), store)
            async with asyncio.timeout(30):
                with pytest.raises(TransientJobError) as caught:
                    await writes.write(transcript(segments=segments), "s3://calls/one.wav")
    assert caught.value.error_class is ErrorClass.OUTPUT_ERROR
    assert "could not be written within" in caught.value.reason
    assert metrics.OUTPUTS.labels("failed")._value.get() == failed_before + 1
