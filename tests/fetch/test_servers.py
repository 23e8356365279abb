"""Servers that refuse, lie, stall and never end (H8-H18), each really doing it."""

import asyncio
import gzip
import socket
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer

import pytest

from tests.fetch.conftest import MakeDownloader, Serve, answer
from tests.fetch.fates import FlippingResolver, Spooled, failure, is_permanent, is_transient
from v2td.errors import ErrorClass, TransientJobError
from v2td.fetch import transfer


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        ("404 Not Found", ErrorClass.NOT_FOUND),
        ("410 Gone", ErrorClass.NOT_FOUND),
        ("401 X", ErrorClass.ACCESS_DENIED),
        ("403 X", ErrorClass.ACCESS_DENIED),
        ("400 X", ErrorClass.HTTP_ERROR),
        ("206 Partial", ErrorClass.HTTP_ERROR),
        ("204 No Content", ErrorClass.HTTP_ERROR),
        ("302 Nowhere", ErrorClass.HTTP_ERROR),
    ],
)
async def test_permanent_statuses(
    status: str, error_class: ErrorClass, serve: Serve, make_downloader: MakeDownloader, spooled: Spooled
) -> None:
    server = await serve(answer(status, content_length=""))
    error = await failure(await make_downloader(), server.url("/a?X-Amz-Signature=canary"))
    assert is_permanent(error, error_class)
    assert "canary" not in error.reason
    assert not spooled()


@pytest.mark.parametrize("status", ["408 X", "425 X", "429 X", "500 X", "503 X"])
async def test_transient_statuses(status: str, serve: Serve, make_downloader: MakeDownloader) -> None:
    server = await serve(answer(status, retry_after="17"))
    error = await failure(await make_downloader(), server.url())
    assert isinstance(error, TransientJobError)
    assert error.error_class is ErrorClass.HTTP_ERROR
    assert error.retry_after == 17


async def test_error_body_that_never_comes(serve: Serve, make_downloader: MakeDownloader) -> None:
    async def stuck(_: Reader, writer: Writer) -> None:
        writer.write(answer("404 X", content_length="4000"))
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.1)

    server = await serve(stuck)
    assert is_permanent(await failure(await make_downloader(read_seconds=0.3), server.url()), ErrorClass.NOT_FOUND)


async def test_endless_error_body_is_not_read(serve: Serve, make_downloader: MakeDownloader) -> None:
    server = await serve(answer("404 X", content_length="99999999999", body=b"x" * 8000))
    assert is_permanent(await failure(await make_downloader(read_seconds=30), server.url()), ErrorClass.NOT_FOUND)


async def test_declared_size_over_the_cap(serve: Serve, make_downloader: MakeDownloader, spooled: Spooled) -> None:
    server = await serve(answer(content_length="1001"))
    downloader = await make_downloader(max_bytes=1000)
    assert is_permanent(await failure(downloader, server.url()), ErrorClass.TOO_LARGE)
    exact = await serve(answer(body=b"x" * 1000))
    assert (await downloader.fetch(exact.url())).size_bytes == 1000


async def test_endless_chunked_body(serve: Serve, make_downloader: MakeDownloader, spooled: Spooled) -> None:
    sent = 0

    async def endless(_: Reader, writer: Writer) -> None:
        nonlocal sent
        writer.write(answer(content_length="", transfer_encoding="chunked"))
        while True:
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()
            sent += 65536

    server = await serve(endless)
    error = await failure(await make_downloader(max_bytes=1_000_000), server.url())
    assert is_permanent(error, ErrorClass.TOO_LARGE)
    assert sent < 20_000_000
    assert not spooled()


async def test_encoded_body_stays_as_it_came(serve: Serve, make_downloader: MakeDownloader) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    server = await serve(answer(body=bomb, content_encoding="gzip"))
    audio = await (await make_downloader(max_bytes=1_000_000)).fetch(server.url())
    assert audio.path.read_bytes() == bomb


async def test_short_body(serve: Serve, make_downloader: MakeDownloader, spooled: Spooled) -> None:
    server = await serve(answer(content_length="1000", body=b"x" * 999))
    assert is_transient(await failure(await make_downloader(), server.url()), ErrorClass.HTTP_ERROR)
    assert not spooled()


async def test_chunked_body_without_its_end(serve: Serve, make_downloader: MakeDownloader, spooled: Spooled) -> None:
    server = await serve(answer(content_length="", transfer_encoding="chunked") + b"5\r\nhello\r\n")
    assert is_transient(await failure(await make_downloader(), server.url()), ErrorClass.HTTP_ERROR)
    assert not spooled()


@pytest.mark.parametrize("early", [True, False])
async def test_reset(early: bool, serve: Serve, make_downloader: MakeDownloader, spooled: Spooled) -> None:
    async def reset(_: Reader, writer: Writer) -> None:
        if not early:
            writer.write(answer(content_length="1000", body=b"x" * 10))
            await writer.drain()
            await asyncio.sleep(0.05)
        linger = b"\1\0\0\0\0\0\0\0"
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    server = await serve(reset)
    assert is_transient(await failure(await make_downloader(), server.url()), ErrorClass.HTTP_ERROR)
    assert not spooled()


async def test_nobody_listens(make_downloader: MakeDownloader) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = await failure(await make_downloader(), f"http://127.0.0.1:{taken.getsockname()[1]}/")
    assert is_transient(error, ErrorClass.HTTP_ERROR)


async def test_name_that_does_not_exist(make_downloader: MakeDownloader) -> None:
    downloader = await make_downloader(resolver=FlippingResolver([]))
    assert is_transient(await failure(downloader, "http://no.example/"), ErrorClass.HTTP_ERROR)


async def test_silent_server(serve: Serve, make_downloader: MakeDownloader, spooled: Spooled) -> None:
    async def silent(_: Reader, writer: Writer) -> None:
        writer.write(answer(content_length="1000", body=b"x"))
        await asyncio.sleep(30)

    server = await serve(silent)
    error = await failure(await make_downloader(read_seconds=0.2), server.url())
    assert is_transient(error, ErrorClass.TIMEOUT)
    assert "read_seconds" in error.reason
    assert not spooled()


async def test_slow_loris_body(
    serve: Serve, make_downloader: MakeDownloader, spooled: Spooled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PACE_WINDOW_SECONDS", 0.3)

    async def drip(_: Reader, writer: Writer) -> None:
        writer.write(answer(content_length="1000000"))
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    server = await serve(drip)
    error = await failure(await make_downloader(min_bytes_per_second=1000), server.url())
    assert is_transient(error, ErrorClass.TIMEOUT)
    assert "min_bytes_per_second" in error.reason
    assert not spooled()


async def test_slow_loris_headers(serve: Serve, make_downloader: MakeDownloader) -> None:
    async def drip(_: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"a: b\r\n")
            await writer.drain()
            await asyncio.sleep(0.1)

    server = await serve(drip)
    error = await failure(await make_downloader(read_seconds=0.3, connect_seconds=0.3), server.url())
    assert is_transient(error, ErrorClass.TIMEOUT)


async def test_total_time(serve: Serve, make_downloader: MakeDownloader, spooled: Spooled) -> None:
    async def steady(_: Reader, writer: Writer) -> None:
        writer.write(answer(content_length="", transfer_encoding="chunked"))
        while True:
            writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    server = await serve(steady)
    error = await failure(await make_downloader(total_seconds=0.3, connect_seconds=0.3, read_seconds=0.3), server.url())
    assert is_transient(error, ErrorClass.TIMEOUT)
    assert "total_seconds" in error.reason
    assert not spooled()


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"content-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 20_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 " + b"b" * 20_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ],
    ids=["headers", "long field", "long line", "two lengths", "negative length", "ssh"],
)
async def test_answers_that_are_not_http(head: bytes, serve: Serve, make_downloader: MakeDownloader) -> None:
    server = await serve(head)
    assert is_permanent(await failure(await make_downloader(), server.url()), ErrorClass.HTTP_ERROR)
