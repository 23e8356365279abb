"""Each network of the proxy, in front of a server that echoes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.chaos.proxy import Network, Proxy


class EchoServer:
    """Sends back what it receives; knows who is connected."""

    def __init__(self) -> None:
        self.port = 0
        self.ended = 0  # connections that ended

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            self.ended += 1
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[EchoServer]:
    echo = EchoServer()
    listening = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.port = listening.sockets[0].getsockname()[1]
    yield echo
    listening.close()


@pytest.fixture
async def proxy(server: EchoServer) -> AsyncIterator[Proxy]:
    async with Proxy(("127.0.0.1", server.port), latency_seconds=0.3) as running:
        yield running


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def echo(self, data: bytes, seconds: float = 2.0) -> bytes:
        self.writer.write(data)
        async with asyncio.timeout(seconds):
            return await self.reader.readexactly(len(data))

    async def is_silent(self, seconds: float = 0.3) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[Client]:
    one = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
    assert await one.echo(b"hello") == b"hello"
    yield one
    one.writer.close()


async def test_everything_passes_in_both_directions(client: Client, server: EchoServer) -> None:
    data = bytes(range(256)) * 8192
    assert await client.echo(data) == data
    client.writer.write_eof()
    assert await client.reader.read() == b""
    assert server.ended == 1


async def test_connections_are_reset_and_new_ones_too(client: Client, proxy: Proxy, server: EchoServer) -> None:
    async with proxy.during(Network.RESET):
        with pytest.raises(ConnectionResetError):
            await client.echo(b"x")
        other = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
        with pytest.raises(ConnectionResetError):
            await other.echo(b"x")
        other.writer.close()
    other = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
    assert await other.echo(b"x") == b"x"
    assert server.ended == 1
    other.writer.close()


async def test_a_black_hole_tells_nobody_and_gives_back_what_it_held(client: Client, proxy: Proxy) -> None:
    async with proxy.during(Network.BLACK_HOLE):
        client.writer.write(b"held")
        assert await client.is_silent()
        other = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
        other.writer.write(b"also")
        assert await other.is_silent()
    assert await client.reader.readexactly(4) == b"held"
    assert await other.reader.readexactly(4) == b"also"
    other.writer.close()


async def test_a_black_hole_hides_that_the_client_left(client: Client, proxy: Proxy, server: EchoServer) -> None:
    async with proxy.during(Network.BLACK_HOLE):
        client.writer.close()
        await asyncio.sleep(0.2)
        assert server.ended == 0
    async with asyncio.timeout(2):
        while server.ended == 0:
            await asyncio.sleep(0.01)


async def test_one_byte_a_second(client: Client, proxy: Proxy) -> None:
    began = asyncio.get_running_loop().time()
    async with proxy.during(Network.TRICKLE):
        client.writer.write(b"abc")
        assert await client.reader.readexactly(2) == b"ab"
        assert 0.9 < asyncio.get_running_loop().time() - began < 2
    assert await client.echo(b"") == b""
    async with asyncio.timeout(0.5):
        assert await client.reader.readexactly(1) == b"c"


async def test_latency_delays_but_does_not_slow_down(client: Client, proxy: Proxy) -> None:
    async with proxy.during(Network.LATENCY):
        began = asyncio.get_running_loop().time()
        data = b"x" * 1_000_000
        assert await client.echo(data) == data
        assert 0.6 <= asyncio.get_running_loop().time() - began < 1.5


async def test_half_open_connections_are_lost_and_new_ones_good(
    client: Client, proxy: Proxy, server: EchoServer
) -> None:
    proxy.set(Network.HALF_OPEN)
    client.writer.write(b"into the void")
    assert await client.is_silent()
    assert server.ended == 1
    other = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
    assert await other.echo(b"good") == b"good"
    proxy.set(Network.GOOD)
    assert await client.is_silent(), "what is lost stays lost"
    client.writer.close()
    async with asyncio.timeout(2):
        while proxy.open > 1:  # the client's end is the end of it
            await asyncio.sleep(0.01)
    other.writer.close()


async def test_a_service_that_is_away_is_away_behind_the_proxy() -> None:
    async with Proxy(("127.0.0.1", 1)) as nowhere:
        other = Client(*await asyncio.open_connection("127.0.0.1", nowhere.port))
        with pytest.raises(ConnectionResetError):
            await other.echo(b"x")
        other.writer.close()
