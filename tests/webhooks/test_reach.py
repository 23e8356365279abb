"""Whom a webhook may not reach, however it is called; what receivers may do to us; whom TLS takes for whom."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.fetch.fates import FlippingResolver
from tests.transport.certificates import make
from tests.webhooks.conftest import MakeSettings, Receiver, receiving, status
from v2td.config import Settings
from v2td.errors import ConfigError, ServiceError
from v2td.ops.check import checkers, run
from v2td.ops.webhooks import reach
from v2td.webhooks import Answer
from v2td.webhooks.post import judge, open_poster

INSIDE = "the address is private or reserved and not in webhooks.allowed_networks"


async def post(settings: Settings, url: str, resolver: FlippingResolver | None = None) -> Answer:
    async with open_poster(settings, resolver) as poster:
        return await poster.post(url, "id", '{"type": "x"}')


@pytest.mark.parametrize(
    "host", ["127.0.0.2", "127.2", "0x7f000002", "localhost", "[::1]", "[::ffff:127.0.0.2]", "0.0.0.0", "10.0.0.1"]
)
async def test_private_addresses_are_never_told(host: str, make_settings: MakeSettings) -> None:
    async with receiving(host="0.0.0.0") as receiver:
        port = receiver.url.split(":")[2]
        settings = make_settings(allowed_networks=(), fetch={"allowed_networks": ["0.0.0.0/0", "::/0"]})
        found = await post(settings, f"http://{host}:{port}")
        assert found.how == "dead", found
        assert receiver.got == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.com:8080/", "port 8080 is not in webhooks.allowed_ports"),
        ("http://other.example/?token=canary", "host other.example is not in webhooks.allowed_hosts"),
        ("http://bad.example.com/", "host bad.example.com is in fetch.denied_hosts"),
        ("http://u:canary@example.com/", "http://example.com/ is not http(s)://host[:port]/"),
    ],
)
async def test_other_ports_and_hosts_are_refused_by_name(url: str, reason: str, make_settings: MakeSettings) -> None:
    settings = make_settings(
        allowed_ports=(80, 443),
        allowed_hosts=("example.com", "*.example.com"),
        fetch={"denied_hosts": ["bad.example.com"]},
    )
    found = await post(settings, url)
    assert found.how == "dead"
    assert found.error is not None
    assert found.error.startswith(reason)
    assert "canary" not in found.error


async def test_a_name_that_comes_to_mean_something_inside_is_found_out(
    make_settings: MakeSettings, receiver: Receiver
) -> None:
    """The address that is connected to is judged, not the one that somebody looked up before."""
    resolver = FlippingResolver(["127.0.0.1"], ["127.0.0.2"])
    url = f"http://rebind.example:{receiver.url.split(':')[2]}"
    assert (await post(make_settings(), url, resolver)).how == "delivered"
    found = await post(make_settings(), url, resolver)
    assert (found.how, found.error) == ("dead", INSIDE)
    assert len(receiver.got) == 1


async def test_redirects_inside_are_not_followed(make_settings: MakeSettings, receiver: Receiver) -> None:
    receiver.answers += [status(307, location=f"{receiver.url}/inside")]
    found = await post(make_settings(), receiver.url)
    assert (found.how, found.error) == ("failed", "the receiver answered 307, and redirects are not followed")
    assert len(receiver.got) == 1


async def endless_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def trickling_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1")
    await asyncio.sleep(60)


async def endless_interim(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)
        await writer.drain()


async def no_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-\x1b[2J\r\n\r\n")


async def trickling_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX-A: ")
    while True:
        writer.write(b"a")
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("talk", "how"),
    [
        (endless_body, "delivered"),
        (trickling_body, "delivered"),
        (endless_interim, "failed"),
        (no_http, "failed"),
        (trickling_head, "failed"),
    ],
)
async def test_what_receivers_do_beside_their_status_is_no_matter(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], how: str, make_settings: MakeSettings
) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await talk(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        found = await post(make_settings(timeout_seconds=1.5), f"http://127.0.0.1:{port}/")
    finally:
        server.close()
    assert found.how == how, found
    assert found.error is None or (found.error.isprintable() and "fetch." not in found.error)


async def test_only_receivers_with_a_right_certificate_are_told(make_settings: MakeSettings, tmp_path: Path) -> None:
    certificates = make(tmp_path)

    def context(kind: str) -> ssl.SSLContext:
        found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        file = tmp_path / f"{kind}.pem"
        file.write_text(certificates.server(kind))
        found.load_cert_chain(file)
        return found

    ours = make_settings(ca_file=certificates.ca_file)
    async with receiving(context("right")) as right, receiving(context("expired")) as expired:
        assert (await post(ours, right.url)).how == "delivered"
        for settings, url in ((ours, expired.url), (make_settings(), right.url)):
            found = await post(settings, url)
            assert found.how == "failed"
            assert str(found.error).startswith("certificate refused: ")
        assert (len(right.got), len(expired.got)) == (1, 0)
    with pytest.raises(ServiceError, match=r"webhooks\.ca_file"):
        await post(make_settings(ca_file=tmp_path / "nowhere.pem"), right.url)


async def test_nobody_there(make_settings: MakeSettings) -> None:
    async with receiving() as receiver:
        pass
    found = await post(make_settings(), receiver.url)
    assert found.how == "failed"
    assert str(found.error).startswith("no connection: ")
    unknown = await post(make_settings(), "http://unknown.example/", FlippingResolver([]))
    assert (unknown.how, unknown.error) == ("failed", "the host's name could not be resolved")


@pytest.mark.parametrize(
    ("number", "header", "asked"),
    [(429, "7", 7.0), (503, "7", 7.0), (503, "soon", None), (503, None, None), (500, "7", None), (404, "7", None)],
)
def test_pauses_that_are_asked_for(number: int, header: str | None, asked: float | None) -> None:
    found = judge(number, header, datetime.now(UTC))
    assert (found.how, found.asked) == ("failed", asked)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.2:80/x?token=canary", "127.0.0.2: private or reserved, and not in webhooks.allowed_networks"),
        ("http://127.0.0.1:8080/", "port 8080 is not in webhooks.allowed_ports"),
    ],
)
async def test_check_says_where_the_guard_lets_nothing_through(
    url: str, told: str, make_settings: MakeSettings
) -> None:
    with pytest.raises(ConfigError) as caught:
        await reach(make_settings(url=url, allowed_ports=(80,)))
    assert told in str(caught.value)
    assert "canary" not in str(caught.value)
    good = make_settings(url="http://127.0.0.1/", allowed_ports=(80,))
    assert (await reach(good)).startswith("127.0.0.1 is at 127.0.0.1; ")
    (check,) = await run("webhooks", checkers(good, offline=False)["webhooks"], good)
    assert check.ok


async def test_a_name_server_that_hangs_holds_up_no_other_look_up(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More look-ups hang than the event loop has threads for all of its own."""
    answered = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        answered.wait(30)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        async with open_poster(make_settings(timeout_seconds=1)) as poster:
            posting = [asyncio.create_task(poster.post(f"http://n{n}.example/", "id", "{}")) for n in range(6)]
            async with asyncio.timeout(20):
                assert await asyncio.get_running_loop().getaddrinfo("localhost", 80)
                found = await asyncio.gather(*posting)
    finally:
        answered.set()
    assert {each.how for each in found} == {"failed"}
