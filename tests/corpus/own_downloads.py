"""Downloads that nobody listed: answers that desynchronise, never begin, or pretend to be something else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from urllib.parse import quote

from tests.corpus.case import Case, Place, Row, job
from tests.corpus.downloads import FORBIDDEN, MAX_BYTES, repeating
from tests.fetch.conftest import answer
from tests.fuzz.findings import FINDINGS
from v2td.bundled.recordings import AUDIO

HTTP_ERROR = "P http_error"


def cases(place: Place) -> Iterator[Case]:
    """Yield them."""
    sound = (AUDIO / "en-01.flac").read_bytes()
    yield from _heads(place, sound)
    yield from _bodies(place, sound)
    yield from _redirects(place, sound)
    yield from _urls(place)
    yield from _files(place, sound)


def _heads(place: Place, sound: bytes) -> Iterator[Case]:
    put = place.web.put
    # As fast as they are taken: a pause would hide that reading them can hold the event loop.
    proceed = repeating(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000)
    yield Case("own: 100 Continue for ever", HTTP_ERROR, job(put("c100", proceed)))
    hints = repeating(b"", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 2000)
    yield Case("own: 103 Early Hints for ever", HTTP_ERROR, job(put("c103", hints)))
    yield Case(
        "own: 101 Switching Protocols", "P * | T *", job(put("c101", b"HTTP/1.1 101 X\r\nupgrade: x\r\n\r\n" + sound))
    )
    heads = {
        "HTTP/0.9": b"RIFF" + sound,
        "a header of 20 kB": answer(body=sound, x="y" * 20_000),
        "a header without end": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000,
        "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        "a negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n" + sound,
        "a length of 5000 digits": b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n",
        "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "a status of 5 digits": b"HTTP/1.1 20000 OK\r\n\r\n",
        "NUL in a header": b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n",
        "a folded header": b"HTTP/1.1 200 OK\r\nx: a\r\n content-length: 3\r\ncontent-length: 0\r\n\r\n",
    }
    for name, head in heads.items():
        expected = f"{HTTP_ERROR} | T http_error | P not_audio | P too_large"
        yield Case(f"own: {name}", expected, job(put(f"head/{name}", head)))
    cookies = answer(body=sound)[: -len(sound)].replace(b"\r\n\r\n", b"\r\n") + b"set-cookie: a=b; domain=.\r\n" * 100
    yield Case("own: 100 cookies", "OK", job(put("cookies", cookies + b"\r\n" + sound)))
    dates = {"in the year 9999": "Fri, 31 Dec 9999 23:59:59 GMT", "negative": "-1", "no date": "x" * 1000}
    for name, value in dates.items():
        yield Case(
            f"own: Retry-After {name}", "T http_error", job(put(f"later/{name}", answer("503 X", retry_after=value)))
        )
    canary = answer("404 X", body=b"<Code>canary\r\n\x1b[2J</Code>" + bytes(5000))
    yield Case("own: an error's body with control characters", "P not_found", job(put("error-body", canary)))


def _bodies(place: Place, sound: bytes) -> Iterator[Case]:
    put = place.web.put
    chunked = answer(content_length="", transfer_encoding="chunked")
    whole = b"%x\r\n%s\r\n0\r\n" % (len(sound), sound)
    yield Case(
        "own: a chunk of 2^64 bytes", f"{HTTP_ERROR} | T http_error", job(put("chunk", chunked + b"f" * 16 + b"\r\nx"))
    )
    yield Case("own: a negative chunk", f"{HTTP_ERROR} | T http_error", job(put("minus", chunked + b"-5\r\nhello\r\n")))
    extension = chunked + b"5;" + b"x" * 1_000_000
    yield Case("own: a chunk extension of 1 MB", f"{HTTP_ERROR} | T http_error", job(put("extension", extension)))
    extensions = repeating(chunked + b"1;", b"x" * 65536)
    yield Case("own: a chunk extension without end", "P too_large | P http_error", job(put("extensions", extensions)))
    one_by_one = chunked + b"".join(b"1\r\n%c\r\n" % byte for byte in sound[:100_000]) + b"0\r\n\r\n"
    yield Case("own: chunks of one byte", "OK* | P not_audio", job(put("bytes", one_by_one)))
    trailers = repeating(chunked + whole, b"x: y\r\n" * 2000)
    yield Case("own: trailers for ever", "OK | T * | P http_error | P too_large", job(put("trailers", trailers)))
    yield Case("own: more than was said", f"OK | {HTTP_ERROR}", job(put("more", answer(body=sound) + b"x" * 100_000)))
    both = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n" + whole + b"\r\n"
    yield Case("own: two ways to tell the length", f"OK | {HTTP_ERROR} | T http_error", job(put("both", both)))
    to_the_end = answer(content_length="", body=sound)
    yield Case("own: a body until the connection closes", "OK", job(put("to-the-end", to_the_end)))
    for encoding in ("br", "zstd", "deflate", "gzip, gzip, gzip"):
        url = put(f"encoded/{encoding}", answer(body=os.urandom(1000), content_encoding=encoding))
        yield Case(f"own: encoded as {encoding}", "P not_audio", job(url))

    async def slower(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(content_length=str(MAX_BYTES)))
        for _piece in range(100_000):
            writer.write(bytes(100))
            await writer.drain()
            await asyncio.sleep(0.1)

    yield Case("own: never silent, never done", "T timeout", job(put("slower", slower)))


def _redirects(place: Place, sound: bytes) -> Iterator[Case]:
    put, port = place.web.put, place.trap.port
    locations = {
        "s3": f"s3://{place.bucket}/x",
        "with userinfo": f"http://user:canary@127.0.0.9:{place.web.port}/x",
        "to a name inside": f"http://inside.test:{port}/",
        "in hexadecimal": f"//0x7f000001:{port}/",
        "mapped": f"http://[::ffff:7f00:1]:{port}/",
        "with a tab in its host": f"http://127.0.\t0.1:{port}/",
        "of 7 kB": "/" + "x" * 7000,
        "javascript": "javascript:fetch('http://127.0.0.1/')",
        "data": "data:audio/wav;base64,UklGRg==",
    }
    for name, location in locations.items():
        expected = f"{FORBIDDEN} | P http_error" if name in ("of 7 kB", "with a tab in its host") else FORBIDDEN
        if name == "of 7 kB":
            expected = "P *"
        yield Case(f"own: redirect {name}", expected, job(put(f"to/{name}", answer("307 X", location=location))))
    put("here", answer(body=sound))
    yield Case("own: redirect without a place", HTTP_ERROR, job(put("nowhere", answer("302 X"))))
    yield Case("own: redirect that may be followed", "OK", job(put("follow", answer("308 X", location="/here"))))
    steps = [answer("302 X", location=f"/far?{number}") for number in range(6)]
    yield Case("own: one redirect too many", HTTP_ERROR, job(put("far", *steps, answer(body=sound))))
    yield Case(
        "own: a name with addresses inside and outside",
        "OK",
        job(place.web.body("two", sound).replace("127.0.0.9", "both.test")),
    )


def _urls(place: Place) -> Iterator[Case]:
    port, web = place.trap.port, place.web
    store = f"http://127.0.0.1:{port}"
    urls = {
        "backslashes": f"http:\\\\127.0.0.1:{port}\\",
        "CRLF": f"http://127.0.0.9:{web.port}/ HTTP/1.1\r\nHost: x\r\n\r\nGET /",
        "no host": "http:///etc/passwd",
        "one slash": f"http:/127.0.0.1:{port}/",
        "a port of 6 digits": "http://127.0.0.9:100000/",
        "port 0": "http://127.0.0.9:0/",
        "8000 dots": "http://" + "a." * 4000 + "test/",
        "a soft hyphen": f"http://127.0.0.1\u00ad:{port}/",
        "a right-to-left host": f"http://\u202e1.0.0.721:{port}/",
        "another scheme in upper case": "FILE:///etc/passwd",
        "jar": f"jar:{store}/a.jar!/x",
        "a host called file": "file://127.0.0.1/etc/passwd",
        "an S3 bucket above": "s3://../x",
        "an S3 bucket with a host": f"s3://127.0.0.1:{port}@x/y",
    }
    for name, url in urls.items():
        yield Case(f"own: URL with {name}", FORBIDDEN, job(url))
    for name, found in FINDINGS["url"].items():
        yield Case(f"own: found by fuzzing: {name}", FORBIDDEN, job(found.decode()))
    root = web.put("", answer("404 X")).removesuffix("/")  # where readers that agree on the host go
    for mark in "#?":
        yield Case(f"own: URL with {mark}@ behind the host", "P not_found", job(f"{root}{mark}@127.0.0.1:{port}/"))


def _files(place: Place, sound: bytes) -> Iterator[Case]:
    folder = place.folder / "served"
    folder.mkdir()
    (folder / "good.flac").write_bytes(sound)
    (folder / "link.flac").symlink_to("/etc/passwd")
    (folder / "folder.flac").symlink_to("/etc")
    (folder / "loop.flac").symlink_to(folder / "loop.flac")
    os.mkfifo(folder / "pipe.flac")
    base = folder.as_uri()
    yield Case("own: a file below the roots", "OK", job(f"{base}/good.flac"))
    for name, path in {
        "a link out": "link.flac",
        "a linked folder": "folder.flac/passwd",
        "a loop of links": "loop.flac",
        "a pipe": "pipe.flac",
        "a folder": "",
        "../": "../../../../../../etc/passwd",
        "an escaped ../": quote("../../../../../../etc/passwd", safe="."),
        "NUL": "good.flac%00.txt",
    }.items():
        yield Case(f"own: file with {name}", FORBIDDEN, job(f"{base}/{path}"), check=_no_text)


def _no_text(row: Row) -> str | None:
    return "it was read" if "text" in row else None
