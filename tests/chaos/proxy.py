"""A TCP proxy that makes a network bad: in front of a service, it is what lies between the daemon and that service."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

_CHUNK_BYTES = 65_536
_CHUNKS_AHEAD = 64  # read from one side and not yet given to the other


class Network(Enum):
    """What happens to connections, those that are there and new ones, until another mode is set."""

    GOOD = "everything passes at once"
    RESET = "connections are reset, new ones too"
    BLACK_HOLE = "connections stay and new ones are taken, but nothing comes through; it comes later, once mended"
    TRICKLE = "one byte a second in each direction"
    LATENCY = "everything arrives late, in order"
    HALF_OPEN = "connections that are there are lost, and only the server's side was told; new ones are good"


@dataclass(eq=False, slots=True)
class _Link:
    """One connection of a client, and ours to the server for it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    lost: bool = False  # half open: what either side says is heard by nobody, for ever
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def end(self) -> None:
        for task in self.tasks:
            task.cancel()

    def reset(self) -> None:
        _reset(self.client)
        _reset(self.server)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST: the other side loses what it has not read yet."""
    if not writer.transport.is_closing():
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Proxy:
    """Forwards 127.0.0.1:`port` to `target`; an async context manager. `network` is what `set` made of it."""

    def __init__(self, target: tuple[str, int], *, port: int = 0, latency_seconds: float = 0.5) -> None:
        self.port = port
        self.network = Network.GOOD
        self.connections = 0  # taken so far
        self._target = target
        self._latency_seconds = latency_seconds
        self._links: set[_Link] = set()
        self._changed = asyncio.Event()  # another one with each mode

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        tasks = [task for link in self._links for task in link.tasks]
        for link in list(self._links):
            link.reset()
            link.end()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def open(self) -> int:
        """Connections that are there, lost ones included."""
        return len(self._links)

    def set(self, network: Network) -> None:
        """Change the network for connections that are there, and for new ones."""
        self.network = network
        self._changed.set()
        self._changed = asyncio.Event()
        if network is Network.RESET:
            for link in self._links:
                link.reset()
        elif network is Network.HALF_OPEN:
            for link in self._links:
                link.lost = True
                _reset(link.server)

    @asynccontextmanager
    async def during(self, network: Network) -> AsyncIterator[None]:
        """Have the network like that inside the block, and good again behind it."""
        self.set(network)
        try:
            yield
        finally:
            self.set(Network.GOOD)

    async def _connected(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.network is Network.RESET:
            _reset(client)
            return
        try:
            far_reader, server = await asyncio.open_connection(*self._target)
        except OSError:  # the service itself is away: that is what the client is to see
            _reset(client)
            return
        link = _Link(client, server)
        self._links.add(link)
        try:
            link.tasks += [
                asyncio.create_task(self._pump(reader, server, link)),
                asyncio.create_task(self._pump(far_reader, client, link)),
            ]
            await asyncio.wait(link.tasks)
        finally:
            self._links.remove(link)
            link.reset()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link) -> None:
        """Carry one direction until its sender ends, and pass that on, too."""
        arrived: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_AHEAD)
        carrying = asyncio.create_task(self._carry(arrived, writer, link))
        try:
            data = b"begin"
            while data:
                try:
                    data = await reader.read(_CHUNK_BYTES)
                except OSError:
                    data = b""
                await arrived.put((asyncio.get_running_loop().time(), data))
            await carrying
        finally:
            carrying.cancel()

    async def _carry(
        self, arrived: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, link: _Link
    ) -> None:
        while True:
            since, data = await arrived.get()
            if link.lost:  # nothing is passed on, and least of all that the other side is gone
                if not data and writer is link.server:
                    link.end()
                continue
            await self._deliver(since, data, writer)
            if not data:
                writer.close()
                return

    async def _deliver(self, since: float, data: bytes, writer: asyncio.StreamWriter) -> None:
        """Write what arrived at `since` (loop time) as the network has it, and go by a new mode at once."""
        loop = asyncio.get_running_loop()
        while True:
            match self.network:
                case Network.BLACK_HOLE:
                    await self._changed.wait()
                case Network.LATENCY if (late := since + self._latency_seconds - loop.time()) > 0:
                    await self._unless_changed(late)
                case Network.TRICKLE if data:
                    writer.write(data[:1])
                    data = data[1:]
                    await self._unless_changed(1.0)
                case _:
                    if data:
                        writer.write(data)
                        with suppress(OSError):
                            await writer.drain()
                    return

    async def _unless_changed(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
