"""Servers that send without end what is no body: interim answers, a second answer, chunk extensions, trailers."""

import asyncio
import contextlib
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator

import pytest

from tests.fetch.conftest import MakeDownloader, Serve, answer
from tests.fetch.fates import BODY, Spooled, failure, is_permanent, is_transient
from v2td.errors import ErrorClass
from v2td.fetch import transfer

CHUNKED = answer(content_length="", transfer_encoding="chunked")
INTERIM = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"


class Flood:
    """A server's part of a conversation: a head, then a piece again and again, as fast as it is taken."""

    def __init__(self, head: bytes, piece: bytes) -> None:
        self.sent_bytes = 0
        self._head = head
        self._piece = piece * max(1, 65536 // len(piece))

    async def __call__(self, _: Reader, writer: Writer) -> None:
        writer.write(self._head)
        while True:
            writer.write(self._piece)
            await writer.drain()
            self.sent_bytes += len(self._piece)


@contextlib.asynccontextmanager
async def responsive_loop(seconds: float) -> AsyncIterator[None]:
    """The loop is never held for longer than this meanwhile."""
    clock = asyncio.get_running_loop().time
    worst = 0.0

    async def watch() -> None:
        nonlocal worst
        while True:
            before = clock()
            await asyncio.sleep(0.01)
            worst = max(worst, clock() - before)

    watching = asyncio.create_task(watch())
    yield
    watching.cancel()
    assert worst < seconds


@pytest.mark.parametrize(
    "piece", [INTERIM, b"HTTP/1.1 103\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["103", "shortest", "100"]
)
async def test_endless_interim_answers(
    piece: bytes, serve: Serve, make_downloader: MakeDownloader, spooled: Spooled
) -> None:
    flood = Flood(b"", piece)
    server = await serve(flood)
    downloader = await make_downloader()
    async with responsive_loop(1.0):
        errors = await asyncio.gather(*(failure(downloader, server.url()) for _ in range(12)))
    for error in errors:
        assert is_permanent(error, ErrorClass.HTTP_ERROR)
        assert "interim" in error.reason
    assert flood.sent_bytes < 12 * 8_000_000  # what the sockets' buffers take
    assert not spooled()


async def test_some_interim_answers_are_fine(serve: Serve, make_downloader: MakeDownloader) -> None:
    server = await serve(INTERIM * 16 + answer(body=BODY), INTERIM * 17 + answer(body=BODY))
    downloader = await make_downloader()
    assert (await downloader.fetch(server.url())).size_bytes == len(BODY)
    assert is_permanent(await failure(downloader, server.url()), ErrorClass.HTTP_ERROR)


async def test_large_interim_answers(serve: Serve, make_downloader: MakeDownloader) -> None:
    hints = b"HTTP/1.1 103 X\r\n" + b"link: %s\r\n" % (b"x" * 7900) + b"\r\n"
    server = await serve(hints * 9 + answer(body=BODY))
    error = await failure(await make_downloader(), server.url())
    assert is_permanent(error, ErrorClass.HTTP_ERROR)
    assert "bytes of headers" in error.reason


async def test_a_second_answer_ends_a_kept_connection(serve: Serve, make_downloader: MakeDownloader) -> None:
    flood = Flood(answer(body=BODY, connection=""), answer(connection=""))
    server = await serve(flood)
    assert (await (await make_downloader()).fetch(server.url())).size_bytes == len(BODY)
    await asyncio.sleep(0.2)
    assert flood.sent_bytes < 8_000_000


async def test_a_connection_serves_many_requests(serve: Serve, make_downloader: MakeDownloader) -> None:
    connections = 0

    async def patient(reader: Reader, writer: Writer) -> None:
        nonlocal connections
        connections += 1
        while True:
            writer.write(INTERIM * 10 + answer(body=BODY, connection=""))
            await writer.drain()
            await reader.readuntil(b"\r\n\r\n")

    server = await serve(patient)
    downloader = await make_downloader()
    for _ in range(4):
        assert (await downloader.fetch(server.url())).size_bytes == len(BODY)
    assert connections == 1


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (CHUNKED + b"1;", b"a"),
        (CHUNKED, b"1;" + b"x" * 8000 + b"\r\na\r\n"),
        (CHUNKED + b"1\r\na\r\n0\r\n", b"x: y\r\n"),
        (CHUNKED, b"0"),
    ],
    ids=["one extension", "extensions", "trailers", "zeros"],
)
async def test_more_around_the_body_than_body(
    head: bytes, piece: bytes, serve: Serve, make_downloader: MakeDownloader, spooled: Spooled
) -> None:
    flood = Flood(head, piece)
    server = await serve(flood)
    error = await failure(await make_downloader(), server.url())
    assert is_permanent(error, ErrorClass.TOO_LARGE) or is_permanent(error, ErrorClass.HTTP_ERROR)
    assert flood.sent_bytes < 16_000_000
    assert not spooled()


async def test_an_error_with_endless_extensions_stays_that_error(serve: Serve, make_downloader: MakeDownloader) -> None:
    server = await serve(Flood(CHUNKED.replace(b"200 OK", b"404 X") + b"1;", b"a"))
    assert is_permanent(await failure(await make_downloader(), server.url()), ErrorClass.NOT_FOUND)


@pytest.mark.parametrize("chunk_bytes", [8, 100, 8192])
async def test_small_chunks_are_fine(chunk_bytes: int, serve: Serve, make_downloader: MakeDownloader) -> None:
    chunks = (BODY[start : start + chunk_bytes] for start in range(0, len(BODY), chunk_bytes))
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    server = await serve(CHUNKED + body + b"0\r\n\r\n")
    audio = await (await make_downloader()).fetch(server.url())
    assert audio.path.read_bytes() == BODY


async def test_extensions_that_trickle_in_are_no_pace(
    serve: Serve, make_downloader: MakeDownloader, spooled: Spooled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PACE_WINDOW_SECONDS", 0.3)

    async def drip(_: Reader, writer: Writer) -> None:
        writer.write(CHUNKED + b"1;")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    server = await serve(drip)
    downloader = await make_downloader(total_seconds=3)
    error = await failure(downloader, server.url())
    assert is_transient(error, ErrorClass.TIMEOUT)
    assert "min_bytes_per_second" in error.reason
    assert not spooled()


async def test_a_body_that_cannot_be_parsed_ends_at_once(serve: Serve, make_downloader: MakeDownloader) -> None:
    server = await serve(Flood(CHUNKED + b"1\r\na\r\n0\r\nx: ", b"a"))
    error = await failure(await make_downloader(total_seconds=3, min_bytes_per_second=0), server.url())
    assert is_transient(error, ErrorClass.HTTP_ERROR)
