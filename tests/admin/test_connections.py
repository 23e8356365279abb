import asyncio
import socket
import time

import pytest

from tests.admin.serving import Daemon, port_of, raw, rejected, served


async def test_headers_have_to_arrive_in_time(daemon: Daemon) -> None:
    async with served(daemon, request_seconds=0.3) as session:
        began = time.monotonic()
        assert await raw(session, b"GET /status HTTP/1.1\r\n", b"Host: loc") == b""
        assert 0.2 < time.monotonic() - began < 3


async def test_a_connection_that_idles_after_an_answer_is_closed(daemon: Daemon) -> None:
    async with served(daemon, request_seconds=0.3) as session:
        assert (await raw(session, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")).endswith(b"ok\n")


async def test_when_there_are_too_many_the_oldest_gives_way(daemon: Daemon) -> None:
    before = rejected("connections")
    async with served(daemon, max_connections=3) as session:
        held = [await asyncio.open_connection("127.0.0.1", port_of(session)) for _ in range(3)]
        await asyncio.sleep(0.05)  # until the server has them too
        async with session.get("/livez") as answer:
            assert answer.status == 200
        assert await asyncio.wait_for(held[0][0].read(), 2) == b""
        for reader, _writer in held[1:]:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(), 0.1)
        for _reader, writer in held:
            writer.close()
    assert rejected("connections") == before + 1


async def test_a_client_that_takes_no_answer_is_cut_off(daemon: Daemon) -> None:
    """Its receive buffer and our send buffer are full, and stay so: only the kernel can notice."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.setblocking(False)
        async with served(daemon, request_seconds=0.5, requests_per_second=10_000) as session:
            await loop.sock_connect(client, ("127.0.0.1", port_of(session)))
            began = time.monotonic()
            error = await asyncio.wait_for(error_of(client), 20)
            assert isinstance(error, ConnectionResetError | BrokenPipeError)
            assert time.monotonic() - began > 0.4


async def error_of(client: socket.socket) -> OSError:
    """Ask again and again, take no answer, and return how that ended."""
    loop = asyncio.get_running_loop()
    try:
        while True:
            await loop.sock_sendall(client, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10)
            await asyncio.sleep(0.05)
    except OSError as error:
        return error


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS\r\n\r\n",
        b"SSH-2.0-scanner\r\n\r\n",
        b"GET /status HTTP/9.9\r\n\r\n",
        b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(200)) + b"\r\n",
        b"GET /livez HTTP/1.1\r\nX: " + b"y" * 10_000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused_and_makes_no_noise(
    daemon: Daemon, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    before = rejected("malformed")
    async with served(daemon) as session:
        answer = await raw(session, request_)
    assert answer.split()[1] == b"400"
    assert b"Server: v2td\r\n" in answer
    assert b"X-Content-Type-Options: nosniff\r\n" in answer
    assert not caplog.records
    assert rejected("malformed") == before + 1
