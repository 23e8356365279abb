"""The servers of the corpus: one that says what it is told, however wrong, and one that must never be reached."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

from tests.fetch.conftest import answer

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Step = bytes | Path | Talk

HOST = "127.0.0.9"  # all of 127.0.0.0/8 is ours on Linux: the daemons may reach this address and no other
PIECE_BYTES = 65536
CLOSE_SECONDS = 5.0
# RuntimeError is uvloop's word for a connection that the other side has closed meanwhile.
GONE = (OSError, RuntimeError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


class HostileWeb:
    """Serves what was put into it; requests for the bucket go on to the object store as they are."""

    def __init__(self, store: str) -> None:
        self.port = 0
        self._steps: dict[str, tuple[Step, ...]] = {}
        self._asked: dict[str, int] = {}
        parts = urlsplit(store)
        self._store = (parts.hostname, parts.port)

    @property
    def url(self) -> str:
        """Its address, without a slash at its end."""
        return f"http://{HOST}:{self.port}"

    def put(self, name: str, *steps: Step) -> str:
        """Have the nth request for `name` answered with the nth step, then with the last; returns its URL.

        Bytes are sent as they are, a file as the body of a good answer.
        """
        path = "/" + quote(name)
        assert path not in self._steps, path
        self._steps[path] = steps
        return self.url + path

    def body(self, name: str, data: bytes, **headers: str) -> str:
        """Serve a body as it should be; returns its URL."""
        return self.put(name, answer(body=data, **headers))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(*GONE):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].partition(b"?")[0].decode("latin-1")
            steps = self._steps.get(path)
            if steps is None:
                await self._relay(head, reader, writer)
            else:
                number = self._asked.get(path, 0)
                self._asked[path] = number + 1
                await _say(steps[min(number, len(steps) - 1)], reader, writer)

    async def _relay(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand a signed request to the object store, byte for byte, and its answer back."""
        from_store, to_store = await asyncio.open_connection(*self._store)
        try:
            to_store.write(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            while piece := await from_store.read(PIECE_BYTES):
                writer.write(piece)
                await writer.drain()
        finally:
            await _close(to_store)


async def _say(step: Step, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    match step:
        case bytes():
            writer.write(step)
            await writer.drain()
        case Path():
            writer.write(answer(content_length=str(step.stat().st_size)))
            with step.open("rb") as file:
                while piece := file.read(PIECE_BYTES):
                    writer.write(piece)
                    await writer.drain()
        case _:
            await step(reader, writer)


class Trap:
    """Listens on every address of this machine; `reached` has who came, and nobody may."""

    def __init__(self) -> None:
        self.port = 0
        self.reached: list[str] = []

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = (str(writer.get_extra_info(each)[0]) for each in ("peername", "sockname"))
        if there == here or "127." in there:  # not somebody else who looks around on this network
            with suppress(*GONE, TimeoutError):
                self.reached.append(repr(await asyncio.wait_for(reader.read(200), 1)))


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close a connection when what was written has gone out; at once when nobody takes it, or we are cancelled."""
    writer.close()
    try:
        with suppress(*GONE, TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), CLOSE_SECONDS)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def hostile_web(store: str) -> AsyncIterator[HostileWeb]:
    """Open the server that may be reached; `store` is the object store's address."""
    web = HostileWeb(store)
    async with _listening(web._connected, HOST) as web.port:
        yield web


@asynccontextmanager
async def trap() -> AsyncIterator[Trap]:
    """Open the listener that must never be reached."""
    found = Trap()
    async with AsyncExitStack() as stack:
        found.port = await stack.enter_async_context(_listening(found._connected, "0.0.0.0"))
        with suppress(OSError):  # no IPv6 here
            await stack.enter_async_context(_listening(found._connected, "::", found.port))
        yield found


@asynccontextmanager
async def untrusted_https(certificate: Path) -> AsyncIterator[str]:
    """Open a server with a certificate (and key) of its own making; yield its address."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(body=b"secret"))

    async with _listening(connected, HOST, tls=tls) as port:
        yield f"https://{HOST}:{port}"


@asynccontextmanager
async def _listening(talk: Talk, host: str, port: int = 0, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await talk(reader, writer)
        finally:
            await _close(writer)
            tasks.discard(task)

    server = await asyncio.start_server(connected, host, port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
