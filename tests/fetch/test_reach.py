"""Where a download may not go (H1-H7): whatever the address is called, and whoever leads there."""

import pytest

from tests.fetch.conftest import MakeDownloader, Serve, answer
from tests.fetch.fates import BODY, FlippingResolver, failure, is_permanent
from v2td.errors import ErrorClass

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
