"""Certificates and handshakes (H9, H11)."""

import asyncio
import socket
import ssl
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from pathlib import Path

import pytest

from tests.fetch.conftest import MakeDownloader, Serve, answer
from tests.fetch.fates import BODY, FlippingResolver, failure, is_permanent, is_transient
from v2td.errors import ErrorClass


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
