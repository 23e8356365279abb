"""Real servers on loopback that say exactly what a test tells them, on the daemon's event loop."""

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

import pytest
import uvloop
from pydantic import SecretStr

from tests.services.state import Services
from v2td.config import CacheSettings, FetchSettings, S3Settings
from v2td.fetch import Downloader

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The daemon runs on uvloop, and sockets are where loops differ."""
    return {"uvloop": uvloop.new_event_loop}


@dataclass
class Server:
    """Where a server listens, and what it was sent: the heads of all requests."""

    host: str
    port: int
    requests: list[str] = field(default_factory=list)

    def url(self, path: str = "/a.wav", scheme: str = "http") -> str:
        return f"{scheme}://{self.host}:{self.port}{path}"


@pytest.fixture
def settings(services: Services) -> S3Settings:
    """The real object store's."""
    return S3Settings(
        endpoint_url=services.s3_endpoint,
        region=services.s3_region,
        access_key=services.s3_access_key,
        secret_key=SecretStr(services.s3_secret_key),
    )


Serve = Callable[..., Awaitable[Server]]
MakeDownloader = Callable[..., Awaitable[Downloader]]


def answer(status: str = "200 OK", body: bytes = b"", **headers: str) -> bytes:
    """An HTTP answer; content_length="" leaves that header out."""
    lines = {"content_length": str(len(body)), "connection": "close"} | headers
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items() if value)
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1") + body


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """``await serve(talk or bytes…, host="127.0.0.1", tls=None)``: answer n gets the nth bytes, the last one again."""
    tasks: set[asyncio.Task[None] | None] = set()
    async with contextlib.AsyncExitStack() as stack:

        async def start(*script: bytes | Talk, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Server:
            async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                tasks.add(asyncio.current_task())
                # RuntimeError is uvloop's word for a connection that the other side has closed meanwhile.
                gone = (OSError, RuntimeError, asyncio.IncompleteReadError, asyncio.CancelledError)
                with contextlib.suppress(*gone):
                    head = await reader.readuntil(b"\r\n\r\n")
                    step = script[min(len(server.requests), len(script) - 1)]
                    server.requests.append(head.decode("latin-1"))
                    if isinstance(step, bytes):
                        writer.write(step)
                        await writer.drain()
                    else:
                        await step(reader, writer)
                writer.close()

            listener = await asyncio.start_server(connected, host, 0, ssl=tls)
            stack.callback(listener.close)
            server = Server(host, listener.sockets[0].getsockname()[1])
            return server

        yield start
        for task in filter(None, tasks):
            task.cancel()
        await asyncio.gather(*filter(None, tasks))


@pytest.fixture
async def make_downloader(tmp_path: Path) -> AsyncIterator[MakeDownloader]:
    """``await make_downloader(resolver=None, s3=S3Settings(), cache={}, **fetch)``: 127.0.0.1 is allowed, no other."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(
            *,
            s3: S3Settings | None = None,
            resolver: object = None,
            cache: Mapping[str, object] | None = None,
            **fetch: object,
        ) -> Downloader:
            values = {
                "allowed_networks": (ip_network("127.0.0.1/32"),),
                "allowed_ports": (),
                "connect_seconds": 2,
                "read_seconds": 2,
                "spool_dir": tmp_path / "spool",
            } | fetch
            downloader = Downloader(
                FetchSettings.model_validate(values),
                s3 or S3Settings(),
                resolver,  # type: ignore[arg-type]  # object keeps the signature short
                CacheSettings.model_validate(cache or {}),
            )
            return await stack.enter_async_context(downloader)

        yield make


@pytest.fixture
def spooled(tmp_path: Path) -> Callable[[], list[Path]]:
    """The files that lie in the spool now."""
    return lambda: [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM with a self-signed certificate for 127.0.0.1 and its key."""
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=v2td test"]
    extension = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(file), "-out", f"{file}.crt"]
    subprocess.run(command + extension, check=True, capture_output=True)
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context
