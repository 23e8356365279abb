"""[[fetch.hosts]]: private sources are shown what the config says, and nobody else is."""

import asyncio
import contextlib
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from pydantic import SecretStr

from tests.fetch.conftest import MakeDownloader, Serve, Server, answer
from tests.fetch.fates import BODY, FlippingResolver, failure, is_permanent, is_transient
from v2td.config import FetchSettings
from v2td.errors import ErrorClass, ServiceError

TOKEN = "canary-token"
LOOPBACK = FlippingResolver(["127.0.0.1"])


def table(server: Server, **values: object) -> dict[str, object]:
    """A table for a plain server that is called media.example."""
    return {"pattern": "media.example", "scheme": "http", "port": server.port, "bearer_token": TOKEN} | values


def url(server: Server, host: str = "media.example", path: str = "/a.wav", scheme: str = "http") -> str:
    return f"{scheme}://{host}:{server.port}{path}"


def shown(head: str) -> bool:
    return TOKEN in head


async def test_a_private_source_is_shown_token_and_headers(serve: Serve, make_downloader: MakeDownloader) -> None:
    server = await serve(answer(body=BODY))
    host = table(server, pattern="*.example", headers={"X-Key": "canary-key", "Cookie": "session=1"})
    downloader = await make_downloader(hosts=[host], resolver=LOOPBACK)
    assert (await downloader.fetch(url(server))).size_bytes == len(BODY)
    (head,) = server.requests
    assert f"Authorization: Bearer {TOKEN}\r\n" in head
    assert "X-Key: canary-key\r\n" in head
    assert "Cookie: session=1\r\n" in head
    assert "Accept-Encoding: identity\r\n" in head


@pytest.mark.parametrize("host", ["MEDIA.Example", "media.example."])
async def test_a_host_may_be_written_otherwise(host: str, serve: Serve, make_downloader: MakeDownloader) -> None:
    server = await serve(answer(body=BODY))
    downloader = await make_downloader(hosts=[table(server)], resolver=LOOPBACK)
    await downloader.fetch(url(server, host))
    assert shown(server.requests[0])


@pytest.mark.parametrize(
    "host",
    ["media.example.org", "a.media.example", "xmedia.example", "example", "127.0.0.1", "media.example.evil.test"],
)
async def test_another_host_is_shown_nothing(host: str, serve: Serve, make_downloader: MakeDownloader) -> None:
    server = await serve(answer(body=BODY))
    downloader = await make_downloader(hosts=[table(server)], resolver=LOOPBACK)
    await downloader.fetch(url(server, host))
    assert not shown(server.requests[0])


@pytest.mark.parametrize("values", [{"port": 1}, {"port": None}, {"scheme": "https"}])
async def test_another_port_or_scheme_is_shown_nothing(
    values: dict[str, object], serve: Serve, make_downloader: MakeDownloader
) -> None:
    server = await serve(answer(body=BODY))
    downloader = await make_downloader(hosts=[table(server, **values)], resolver=LOOPBACK)
    await downloader.fetch(url(server))
    assert not shown(server.requests[0])


async def test_the_first_table_that_fits_counts(serve: Serve, make_downloader: MakeDownloader) -> None:
    server = await serve(answer(body=BODY))
    hosts = [table(server), table(server, pattern="*.example", bearer_token="other-token")]
    downloader = await make_downloader(hosts=hosts, resolver=LOOPBACK)
    await downloader.fetch(url(server))
    await downloader.fetch(url(server, "other.example"))
    assert [shown(head) for head in server.requests] == [True, False]
    assert "Bearer other-token" in server.requests[1]


async def test_a_redirect_within_the_source_keeps_it(serve: Serve, make_downloader: MakeDownloader) -> None:
    server = await serve(answer("302 Found", location="/b.wav"), answer(body=BODY))
    downloader = await make_downloader(hosts=[table(server)], resolver=LOOPBACK)
    await downloader.fetch(url(server, "Media.Example"))
    assert [shown(head) for head in server.requests] == [True, True]


@pytest.mark.parametrize("status", ["301 X", "302 X", "303 X", "307 X", "308 X"])
async def test_a_redirect_to_another_host_ends_it(status: str, serve: Serve, make_downloader: MakeDownloader) -> None:
    """Also to one that fits the same table, and for good: the way back was chosen by somebody else."""
    server = await serve(answer(body=BODY))
    server = await serve(
        lambda _, writer: redirect(writer, url(server, "evil.test")),
        lambda _, writer: redirect(writer, url(server, "other.example")),
        lambda _, writer: redirect(writer, url(server)),
        answer(body=BODY),
    )
    downloader = await make_downloader(hosts=[table(server, pattern="*.example")], resolver=LOOPBACK)

    async def redirect(writer: object, location: str) -> None:
        writer.write(answer(status, location=location))  # type: ignore[attr-defined]  # a StreamWriter

    await downloader.fetch(url(server))
    assert [shown(head) for head in server.requests] == [True, False, False, False]


async def test_a_redirect_to_another_port_ends_it(serve: Serve, make_downloader: MakeDownloader) -> None:
    listener = await serve(answer(body=BODY))
    server = await serve(answer("302 Found", location=url(listener)))
    hosts = [table(server), table(listener)]
    await (await make_downloader(hosts=hosts, resolver=LOOPBACK)).fetch(url(server))
    assert [shown(head) for head in server.requests + listener.requests] == [True, False]


async def test_nobody_else_can_lead_there_with_it(serve: Serve, make_downloader: MakeDownloader) -> None:
    """A stranger's redirect to the private source brings nothing that only we may have."""
    server = await serve(answer("401 Unauthorized"))
    stranger = await serve(answer("302 Found", location=url(server)))
    downloader = await make_downloader(hosts=[table(server)], resolver=LOOPBACK)
    error = await failure(downloader, url(stranger, "evil.test"))
    assert is_permanent(error, ErrorClass.ACCESS_DENIED)
    assert not shown(server.requests[0])


async def test_the_limits_hold_for_private_sources(serve: Serve, make_downloader: MakeDownloader) -> None:
    server = await serve(answer(body=BODY))
    downloader = await make_downloader(hosts=[table(server)], allowed_networks=(), resolver=LOOPBACK)
    assert is_permanent(await failure(downloader, url(server)), ErrorClass.URL_FORBIDDEN)
    assert server.requests == []


@pytest.mark.parametrize("status", ["401 X", "500 X", "nonsense"])
async def test_no_error_names_the_token(status: str, serve: Serve, make_downloader: MakeDownloader) -> None:
    server = await serve(answer(status))
    downloader = await make_downloader(hosts=[table(server)], resolver=LOOPBACK)
    error = await failure(downloader, url(server))
    assert TOKEN not in repr(error) + str(error.__context__) + repr(vars(downloader))
    assert shown(server.requests[0])


# Denied hosts


@pytest.mark.parametrize("host", ["bad.test", "BAD.test.", "a.worse.test", "a.b.worse.test"])
async def test_denied_hosts(host: str, serve: Serve, make_downloader: MakeDownloader) -> None:
    listener = await serve(answer(body=BODY))
    downloader = await make_downloader(
        denied_hosts=["Bad.test", "*.worse.test"], allowed_hosts=["*.test", "127.0.0.1"], resolver=LOOPBACK
    )
    error = await failure(downloader, url(listener, host))
    assert is_permanent(error, ErrorClass.URL_FORBIDDEN)
    assert "fetch.denied_hosts" in error.reason
    server = await serve(answer("302 Found", location=url(listener, host)))
    assert is_permanent(await failure(downloader, server.url()), ErrorClass.URL_FORBIDDEN)
    assert listener.requests == []
    await downloader.fetch(url(listener, "worse.test"))
    assert len(listener.requests) == 1


# Client certificates


def pem(certificate: trustme.LeafCert) -> str:
    return certificate.private_key_and_cert_chain_pem.bytes().decode()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path / "ca.pem"


def mutual_tls(authority: trustme.CA, verify: ssl.VerifyMode = ssl.CERT_REQUIRED) -> ssl.SSLContext:
    """A server's context that asks its clients for certificates of the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("media.example", "other.example").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = verify
    return context


async def test_a_private_source_is_shown_a_certificate(
    serve: Serve, make_downloader: MakeDownloader, authority: trustme.CA, ca_file: Path
) -> None:
    server = await serve(answer(body=BODY), tls=mutual_tls(authority))
    certificate = SecretStr(pem(authority.issue_cert("v2td")))
    host = table(server, scheme="https", bearer_token=None, client_pem=certificate, ca_file=ca_file)
    downloader = await make_downloader(hosts=[host], resolver=LOOPBACK)
    assert (await downloader.fetch(url(server, scheme="https"))).size_bytes == len(BODY)
    await failure(downloader, url(server, "other.example", scheme="https"))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("client", "told"),
    [
        ("none", "alert certificate required"),
        ("of another authority", "alert unknown ca"),
        ("expired", "alert certificate expired"),
    ],
)
async def test_a_refused_certificate_is_told(
    client: str, told: str, make_downloader: MakeDownloader, authority: trustme.CA, ca_file: Path
) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    certificate = {
        "none": None,
        "of another authority": pem(trustme.CA().issue_cert("v2td")),
        "expired": pem(authority.issue_cert("v2td", not_before=yesterday, not_after=yesterday + timedelta(hours=1))),
    }[client]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server("127.0.0.1", listener.getsockname()[1])
        host = table(server, scheme="https", bearer_token=None, client_pem=certificate, ca_file=ca_file)
        downloader = await make_downloader(hosts=[host], resolver=LOOPBACK)
        refusing = asyncio.create_task(asyncio.to_thread(refuse, listener, mutual_tls(authority)))
        error = await failure(downloader, url(server, scheme="https"))
        listener.shutdown(socket.SHUT_RDWR)
        await refusing
    assert is_transient(error, ErrorClass.TLS_ERROR)
    assert told in error.reason


def refuse(listener: socket.socket, tls: ssl.SSLContext) -> None:
    """Answer handshakes that are to fail as servers do, with an alert; asyncio's hangs up without one."""
    with contextlib.suppress(OSError):  # the listener was shut down
        while True:  # aiohttp asks again
            connection, _ = listener.accept()
            wrapped = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            with pytest.raises(ssl.SSLError):
                wrapped.do_handshake()
            with socket.socket(fileno=wrapped.detach()) as plain:
                while plain.recv(65536):  # until the client hangs up: a close of ours could overtake the alert
                    pass


async def test_no_connection_that_showed_a_certificate_is_used_again(
    serve: Serve, make_downloader: MakeDownloader, authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger redirects to the private source while a connection to it, which knows us, is still open."""
    peers = []

    async def keep_alive(reader: object, writer: object) -> None:
        while True:
            peers.append(writer.get_extra_info("peercert"))  # type: ignore[attr-defined]  # a StreamWriter
            writer.write(answer(body=BODY, connection="keep-alive"))  # type: ignore[attr-defined]  # as above
            await reader.readuntil(b"\r\n\r\n")  # type: ignore[attr-defined]  # a StreamReader

    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    server = await serve(keep_alive, tls=mutual_tls(authority, ssl.CERT_OPTIONAL))
    stranger = await serve(answer("302 Found", location=url(server, scheme="https")))
    host = table(server, scheme="https", client_pem=SecretStr(pem(authority.issue_cert("v2td"))))
    downloader = await make_downloader(hosts=[host], resolver=LOOPBACK)
    for _ in range(2):
        await downloader.fetch(url(server, scheme="https"))
        await downloader.fetch(url(stranger, "evil.test"))
    assert [bool(peer) for peer in peers] == [True, False, True, False]
    assert len(server.requests) == 2  # the heads of connections: each of the two was kept


@pytest.mark.parametrize("text", ["nonsense", "-----BEGIN CERTIFICATE-----\ncanary\n-----END CERTIFICATE-----\n"])
async def test_an_unusable_certificate_is_named(text: str, make_downloader: MakeDownloader) -> None:
    host = {"pattern": "media.example", "client_pem": text}
    with pytest.raises(ServiceError, match=r"fetch\.hosts\[0\]\.client_pem: .*PEM") as caught:
        await make_downloader(hosts=[host])
    assert "canary" not in str(caught.value)


async def test_a_key_of_another_certificate_is_named(make_downloader: MakeDownloader, authority: trustme.CA) -> None:
    one, other = authority.issue_cert("a"), authority.issue_cert("a")
    mixed = one.private_key_pem.bytes() + other.cert_chain_pems[0].bytes()
    hosts = [{"pattern": "media.example", "client_pem": mixed.decode()}]
    with pytest.raises(ServiceError, match="key values mismatch"):
        await make_downloader(hosts=hosts)


async def test_a_missing_authority_is_named(make_downloader: MakeDownloader, tmp_path: Path) -> None:
    hosts = [{"pattern": "media.example", "ca_file": tmp_path / "missing.pem"}]
    with pytest.raises(ServiceError, match=r"fetch\.hosts\[0\]\.ca_file = .*missing\.pem: No such file"):
        await make_downloader(hosts=hosts)


def test_settings_show_no_token() -> None:
    hosts = [{"pattern": "a.example", "bearer_token": TOKEN, "headers": {"A": TOKEN}, "client_pem": TOKEN}]
    assert TOKEN not in repr(FetchSettings.model_validate({"hosts": hosts}))
