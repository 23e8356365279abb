"""The fates of threats.md's downloads (H1-H21), each against a server that really does it."""

import asyncio
import gzip
import hashlib
import os
import resource
import signal
import socket
import ssl
import stat
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from tests.fetch.conftest import MakeDownloader, Serve, answer
from v2td.errors import ErrorClass, JobError, ServiceError, TransientJobError
from v2td.fetch import Downloader, transfer
from v2td.metrics import FETCHED_BYTES

BODY = os.urandom(700_000)

Spooled = Callable[[], list[Path]]


class FlippingResolver(AbstractResolver):
    """Names that mean something else each time they are asked for; the last answer stays."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in addresses
        ]

    async def close(self) -> None:
        pass


async def failure(downloader: Downloader, url: str) -> JobError:
    with pytest.raises(JobError) as caught:
        await downloader.fetch(url)
    return caught.value


def is_permanent(error: JobError, error_class: ErrorClass) -> bool:
    return error.error_class is error_class and not isinstance(error, TransientJobError)


def is_transient(error: JobError, error_class: ErrorClass) -> bool:
    return error.error_class is error_class and isinstance(error, TransientJobError)


async def test_download(serve: Serve, make_downloader: MakeDownloader, spooled: Spooled) -> None:
    server = await serve(answer(body=BODY))
    downloader = await make_downloader()
    counter = FETCHED_BYTES.labels("http")
    before = counter._value.get()
    audio = await downloader.fetch(server.url("/../x=1;y%2F.wav?sig=%2B"))
    assert audio.path.read_bytes() == BODY
    assert audio.size_bytes == len(BODY)
    assert audio.sha256 == hashlib.sha256(BODY).hexdigest()
    assert audio.temporary
    assert stat.S_IMODE(audio.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(audio.path.parent.stat().st_mode) == 0o700
    assert counter._value.get() - before == len(BODY)
    head = server.requests[0].lower()
    assert head.startswith("get /../x=1;y%2f.wav?sig=%2b http/1.1")
    assert "accept-encoding: identity" in head
    assert "cookie" not in head
    downloader.discard(audio)
    downloader.discard(audio)
    assert not spooled()


async def test_what_was_not_discarded_goes_with_the_downloader(
    serve: Serve, make_downloader: MakeDownloader, tmp_path: Path
) -> None:
    server = await serve(answer(body=b"abc"))
    async with await make_downloader(spool_dir=tmp_path / "other") as downloader:
        audio = await downloader.fetch(server.url())
        assert audio.path.exists()
    assert not list((tmp_path / "other").iterdir())


async def test_concurrency_is_bounded(serve: Serve, make_downloader: MakeDownloader) -> None:
    now, most = 0, 0

    async def slow(_: Reader, writer: Writer) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.05)
        now -= 1
        writer.write(answer(body=b"x"))

    server = await serve(slow)
    downloader = await make_downloader(concurrency=3)
    await asyncio.gather(*(downloader.fetch(server.url()) for _ in range(9)))
    assert most == 3


LOOPBACK_FORMS = [
    "127.0.0.2",
    "127.0.0.2.",
    "127.2",
    "127.0.2",
    "0x7f000002",
    "0x7f.0.0.2",
    "2130706434",
    "0177.0.0.2",
    "１２７.0.0.2",
    "127。0。0。2",
    "0",
    "0.0.0.0",
    "localhost",
    "LOCALHOST",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.2]",
    "[::ffff:7f00:2]",
    "[::127.0.0.2]",
    "[64:ff9b::127.0.0.2]",
    "[64:ff9b::7f00:2]",
    "[2002:7f00:2::]",
    "[2001:0:7f00:2::]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "user@127.0.0.2",
    "user:word@127.0.0.2",
    "example.com@127.0.0.2",
    "example.com\\@127.0.0.2",
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "192.168.0.1",
]


@pytest.mark.parametrize("host", LOOPBACK_FORMS)
async def test_private_addresses_are_never_reached(host: str, serve: Serve, make_downloader: MakeDownloader) -> None:
    listener = await serve(answer(body=BODY), host="0.0.0.0")
    downloader = await make_downloader(allowed_networks=())
    error = await failure(downloader, f"http://{host}:{listener.port}/a.wav")
    assert is_permanent(error, ErrorClass.URL_FORBIDDEN), error
    assert listener.requests == []


@pytest.mark.parametrize("status", ["301 X", "302 X", "303 X", "307 X", "308 X"])
async def test_redirect_to_a_private_address(status: str, serve: Serve, make_downloader: MakeDownloader) -> None:
    listener = await serve(answer(body=BODY), host="127.0.0.2")
    server = await serve(answer(status, location=listener.url()))
    error = await failure(await make_downloader(), server.url())
    assert is_permanent(error, ErrorClass.URL_FORBIDDEN)
    assert listener.requests == []


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "s3://bucket/key",
        "http://u:p@127.0.0.1/",
        "http://[",
        "//0x7f000001/",
        "/\xff",
        "/\x7f",
    ],
)
async def test_redirect_to_what_is_not_fetched(location: str, serve: Serve, make_downloader: MakeDownloader) -> None:
    server = await serve(answer("302 Found", location=location))
    assert is_permanent(await failure(await make_downloader(), server.url()), ErrorClass.URL_FORBIDDEN)
    assert len(server.requests) == 1


async def test_redirect_to_a_forbidden_port(serve: Serve, make_downloader: MakeDownloader) -> None:
    listener = await serve(answer(body=BODY))
    server = await serve(answer("302 Found", location=listener.url()))
    downloader = await make_downloader(allowed_ports=(server.port,))
    assert is_permanent(await failure(downloader, server.url()), ErrorClass.URL_FORBIDDEN)
    assert listener.requests == []


async def test_good_redirects_are_followed(serve: Serve, make_downloader: MakeDownloader) -> None:
    target = await serve(answer(body=b"there"))
    server = await serve(answer("301 Moved", location="b?c=%2F"), answer("307 X", location=target.url("/x;y=1")))
    audio = await (await make_downloader()).fetch(server.url("/d/a"))
    assert audio.path.read_bytes() == b"there"
    assert [head.split()[1] for head in server.requests + target.requests] == ["/d/a", "/d/b?c=%2F", "/x;y=1"]


async def test_redirect_loop(serve: Serve, make_downloader: MakeDownloader) -> None:
    server = await serve(answer("302 Found", location="/again"))
    error = await failure(await make_downloader(max_redirects=5), server.url())
    assert is_permanent(error, ErrorClass.HTTP_ERROR)
    assert len(server.requests) == 6


async def test_rebinding_name(serve: Serve, make_downloader: MakeDownloader) -> None:
    """The name is allowed when it is first asked for, and leads inside when the redirect asks again."""
    listener = await serve(answer(body=BODY), host="127.0.0.2")
    server = await serve(answer("302 Found", location=f"http://flip.example:{listener.port}/"))
    downloader = await make_downloader(resolver=FlippingResolver(["127.0.0.1"], ["127.0.0.2"]))
    error = await failure(downloader, f"http://flip.example:{server.port}/")
    assert is_permanent(error, ErrorClass.URL_FORBIDDEN)
    assert len(server.requests) == 1
    assert listener.requests == []


async def test_name_with_several_private_addresses(serve: Serve, make_downloader: MakeDownloader) -> None:
    listener = await serve(answer(body=BODY), host="127.0.0.2")
    downloader = await make_downloader(resolver=FlippingResolver(["127.0.0.2", "10.0.0.1", "127.0.0.3"]))
    error = await failure(downloader, f"http://many.example:{listener.port}/")
    assert is_permanent(error, ErrorClass.URL_FORBIDDEN)
    assert listener.requests == []


async def test_private_address_behind_a_dead_one(serve: Serve, make_downloader: MakeDownloader) -> None:
    listener = await serve(answer(body=BODY), host="127.0.0.2")  # nobody listens there on 127.0.0.1
    downloader = await make_downloader(resolver=FlippingResolver(["127.0.0.1", "127.0.0.2"]))
    error = await failure(downloader, f"http://mixed.example:{listener.port}/")
    assert is_permanent(error, ErrorClass.URL_FORBIDDEN)
    assert listener.requests == []


@pytest.mark.parametrize("proxy", ["http_proxy", "HTTP_PROXY", "all_proxy"])
async def test_environment_is_not_trusted(
    proxy: str, serve: Serve, make_downloader: MakeDownloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener, server = await serve(answer(body=b"proxy")), await serve(answer(body=b"direct"))
    monkeypatch.setenv(proxy, listener.url(""))
    audio = await (await make_downloader()).fetch(server.url())
    assert audio.path.read_bytes() == b"direct"
    assert listener.requests == []


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


async def test_bad_certificate(serve: Serve, make_downloader: MakeDownloader, server_tls: ssl.SSLContext) -> None:
    server = await serve(answer(body=BODY), tls=server_tls)
    error = await failure(await make_downloader(), server.url(scheme="https"))
    assert is_permanent(error, ErrorClass.TLS_ERROR)
    assert server.requests == []


async def test_certificate_of_another_host(
    serve: Serve,
    make_downloader: MakeDownloader,
    server_tls: ssl.SSLContext,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server = await serve(answer(body=BODY), tls=server_tls)
    downloader = await make_downloader(resolver=FlippingResolver(["127.0.0.1"]))
    error = await failure(downloader, f"https://other.example:{server.port}/")
    assert is_permanent(error, ErrorClass.TLS_ERROR)
    assert (await downloader.fetch(server.url(scheme="https"))).size_bytes == len(BODY)


async def test_tls_to_a_plain_server(make_downloader: MakeDownloader) -> None:
    def plain(_: Reader, writer: Writer) -> None:
        writer.write(answer("400 Bad Request"))
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await failure(await make_downloader(), f"https://127.0.0.1:{port}/")
    assert is_transient(error, ErrorClass.TLS_ERROR)


async def test_silent_tls_handshake(make_downloader: MakeDownloader) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        downloader = await make_downloader(connect_seconds=0.3)
        error = await failure(downloader, f"https://127.0.0.1:{deaf.getsockname()[1]}/")
    assert is_transient(error, ErrorClass.TIMEOUT)
    assert "connect_seconds" in error.reason


async def test_cancellation_leaves_no_file(serve: Serve, make_downloader: MakeDownloader, spooled: Spooled) -> None:
    sent = asyncio.Event()

    async def half(_: Reader, writer: Writer) -> None:
        writer.write(answer(content_length="1000", body=b"x" * 500))
        await writer.drain()
        sent.set()
        await asyncio.sleep(30)

    server = await serve(half)
    downloader = await make_downloader(read_seconds=30, concurrency=1)
    task = asyncio.create_task(downloader.fetch(server.url()))
    await sent.wait()
    await asyncio.sleep(0.1)
    assert [path.stat().st_size for path in spooled()] == [500]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not spooled()
    other = await serve(answer(body=b"next"))
    assert (await downloader.fetch(other.url())).size_bytes == 4  # its place is free again


async def test_full_disk_is_not_the_jobs_fault(serve: Serve, make_downloader: MakeDownloader, spooled: Spooled) -> None:
    server = await serve(answer(body=BODY))
    downloader = await make_downloader()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(ServiceError, match="spool_dir"):
            await downloader.fetch(server.url())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert not spooled()
