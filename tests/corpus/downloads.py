"""H1 to H21: URLs that lead inside, and servers that refuse, lie, stall and never end."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import Iterator

from tests.corpus.case import Case, Place, job
from tests.corpus.web import Talk
from tests.fetch.conftest import answer
from v2td.bundled.recordings import AUDIO

FORBIDDEN = "P url_forbidden"
LINGER = b"\1\0\0\0\0\0\0\0"  # on, 0 s: close with a reset
MAX_BYTES = 1_000_000  # fetch.max_bytes of the lane `doors`

# Every way to write an address of this machine or network that some reader accepts.
INSIDE = {
    "H2 loopback": ("127.0.0.1", "127.0.0.2", "localhost", "LocalHost", "[::1]", "0.0.0.0", "[::]"),
    "H2 private": ("10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "169.254.169.254", "[fe80::1]", "[fd00::1]"),
    "H3 written oddly": (
        *("0x7f000001", "127.1", "2130706433", "0177.0.0.1", "127.0.0.1.", "0x7f.1", "0", "127.000.000.001"),
        *("１２７.0.0.1", "①②⑦.0.0.1", "127。0。0。1"),
    ),
    "H4 in IPv6": (
        *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::127.0.0.1]", "[2002:7f00:1::]", "[::127.0.0.1]"),
        *("[fe80::1%25lo]", "[2001:0:7f00:1::]", "[::1%25lo]"),
    ),
    "H5 userinfo": ("user:canary@127.0.0.1", "good.test@127.0.0.1", "good.test%40127.0.0.1", "a\\@127.0.0.1"),
    "H7 names": ("inside.test", "private.test", "metadata.test", "mapped.test", "nat64.test", "zone.test"),
}


def cases(place: Place) -> Iterator[Case]:
    """Yield H1 to H21."""
    yield from _forbidden(place)
    yield from _redirects(place)
    yield from _refusals(place)
    yield from _liars(place)
    yield from _object_store(place)


def _forbidden(place: Place) -> Iterator[Case]:
    port = place.trap.port
    for url in (
        "ftp://127.0.0.1/a",
        "data:audio/wav;base64,AAAA",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "a.wav",
    ):
        yield Case(f"H1 {url}", FORBIDDEN, job(url))
    for kind, hosts in INSIDE.items():
        for host in hosts:
            yield Case(f"{kind}: {host}", FORBIDDEN, job(f"http://{host}:{port}/a.wav"))
    for host in ("example.com:canary@good.test", "user@good.test"):
        yield Case(f"H5 userinfo to where one may go: {host}", FORBIDDEN, job(f"http://{host}:{place.web.port}/x"))


def _redirects(place: Place) -> Iterator[Case]:
    port = place.trap.port
    targets = (f"http://127.0.0.1:{port}/", f"http://[::1]:{port}/", f"//localhost:{port}/", "file:///etc/passwd")
    for number, target in enumerate(targets, 1):
        url = place.web.put(f"redirect-{number}", answer("302 Found", location=target))
        yield Case(f"H6 redirect to {target.replace(str(port), 'PORT')}", FORBIDDEN, job(url))
    url = place.web.put("rebinding", answer("302 Found", location=f"http://flip.test:{port}/"))
    yield Case("H7 rebinding", FORBIDDEN, job(url.replace("127.0.0.9", "flip.test")))
    loop = place.web.put("loop", answer("302 Found", location="/loop"))
    yield Case("H8 redirect loop", "P http_error", job(loop))


def _refusals(place: Place) -> Iterator[Case]:
    for status, error_class in {"404": "not_found", "410": "not_found", "403": "access_denied"}.items():
        yield Case(f"H9 {status}", f"P {error_class}", job(place.web.put(f"status-{status}", answer(f"{status} X"))))
    for status in ("429", "503"):
        url = place.web.put(f"status-{status}", answer(f"{status} X", retry_after="9999999"))
        yield Case(f"H10 {status}, Retry-After of months", "T http_error", job(url))
    good = answer(body=(AUDIO / "en-01.flac").read_bytes())
    yield Case("H10 503 once", "OK", job(place.web.put("once", answer("503 X", retry_after="0"), good)))

    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(content_length="1000", body=b"x" * 10))
        await writer.drain()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        writer.transport.abort()

    yield Case("H11 reset", "T http_error", job(place.web.put("reset", reset)))
    yield Case("H11 SERVFAIL", "T http_error", job("http://servfail.test/a.wav"))
    silent = place.web.url.replace("http:", "https:") + "/"  # it waits for a request that it understands
    yield Case("H11 no TLS there", "T t*", job(silent))
    yield Case("H18 NXDOMAIN", "T http_error", job("http://nowhere.test/a.wav"))
    yield Case("H19 bad certificate", "P tls_error", job(f"{place.https}/a.wav"))


def _liars(place: Place) -> Iterator[Case]:
    web = place.web
    bomb = gzip.compress(bytes(100_000_000))
    yield Case("H12 gzip bomb", "P not_audio", job(web.body("bomb.gz", bomb, content_encoding="gzip")))
    large = gzip.compress(bytes(10_000_000)) + bytes(MAX_BYTES)
    yield Case("H12 gzip bomb over the cap", "P too_large", job(web.body("large.gz", large, content_encoding="gzip")))
    over = web.put("over", answer(content_length=str(MAX_BYTES + 1)))
    yield Case("H13 Content-Length over the cap", "P too_large", job(over))
    endless = repeating(answer(content_length="", transfer_encoding="chunked"), b"10000\r\n" + b"x" * 65536 + b"\r\n")
    yield Case("H14 endless chunked", "P too_large", job(web.put("endless", endless)))
    yield Case("H15 short body", "T http_error", job(web.put("short", answer(content_length="1000", body=b"x" * 999))))
    drip = repeating(answer(content_length="100000"), b"x", pause=0.5)
    yield Case("H16 slow-loris", "T timeout", job(web.put("drip", drip)))
    yield Case("H16 silence", "T timeout", job(web.put("silence", repeating(b"HTTP/1.1 ", b"", pause=100))))
    slow_head = repeating(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n", pause=0.5)
    yield Case("H16 slow headers", "T timeout", job(web.put("slow-head", slow_head)))
    many = b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"content-length: 0\r\n\r\n"
    yield Case("H17 200 headers", "P http_error", job(web.put("headers", many)))


def _object_store(place: Place) -> Iterator[Case]:
    yield Case("H20 NoSuchKey", "P not_found", job(f"s3://{place.bucket}/nothing"))
    yield Case("H20 NoSuchBucket", "P not_found", job(f"s3://{place.bucket}-not/x"))
    for number, (code, status, fate) in {
        "H20": ("AccessDenied", "403 Forbidden", "P access_denied"),
        "H21": ("SlowDown", "503 Slow Down", "T http_error"),
    }.items():
        body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>No.</Message></Error>'.encode()
        place.web.put(f"{code.lower()}/key", answer(status, body=body))
        yield Case(f"{number} {code}", fate, job(f"s3://{code.lower()}/key"))


def repeating(head: bytes, piece: bytes, *, pause: float = 0) -> Talk:
    """Return a server's part of a conversation that never ends."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return talk
