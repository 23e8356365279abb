"""Records that nobody listed: what an attacker would try with JSON, with Kafka's headers, and with our own ones."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_plus
from uuid import uuid4

from tests.corpus.case import NAME, Case, Place, job
from tests.corpus.messages import BAD, FIELD, keeps
from tests.fuzz.findings import FINDINGS
from tests.messages.examples import aws_entry, cloud_event
from v2td.bundled.recordings import AUDIO
from v2td.messages.headers import NOT_BEFORE, REPLAY_OF, RETRY_ROUND

MEGABYTE = 1_000_000
FAR_MS = 4_000_000_000_000  # in the year 2096


def cases(place: Place) -> Iterator[Case]:
    """Yield them."""
    sound = (AUDIO / "en-01.flac").read_bytes()
    good = place.web.body("own-recording.flac", sound)
    yield from _json(good)
    yield from _fields(good)
    yield from _records(good)
    yield from _forged_headers(good)
    yield from _notifications(place, sound)


def _json(good: str) -> Iterator[Case]:
    for target in ("message", "notification"):
        for name, found in FINDINGS[target].items():
            yield Case(f"own: found by fuzzing: {name}", "P bad_*", found)
    keys = b"{" + b",".join(b'"%d":0' % number for number in range(20_000)) + b"}"
    yield Case("own: 20,000 keys", BAD, keys)
    yield Case("own: 20,000 keys in metadata", "OK", job(good)[:-1] + b', "metadata": ' + keys + b"}")
    yield Case("own: the keys of other languages' objects", BAD, job(good, __proto__={"x": 1}, constructor=2))
    yield Case("own: the same key written in two ways", BAD, job(good)[:-1] + b', "audio\\u005furl": "x"}')
    yield Case("own: overlong UTF-8", BAD, b'{"audio_url": "\xc0\xaf"}')
    yield Case("own: byte order mark", BAD, b"\xef\xbb\xbf" + job(good))
    yield Case("own: two objects", BAD, job(good) * 2)
    yield Case("own: a number of 200 kB", BAD, job(good)[:-1] + b', "priority": 1.' + b"1" * 200_000 + b"}")
    yield Case("own: 1e999", FIELD, job(good)[:-1] + b', "metadata": {"a": 1e999}}')
    yield Case("own: 128 kB of backslashes", BAD, b'{"audio_url": "' + b"\\" * 128_001)
    yield Case("own: metadata as deep as allowed", "OK", job(good, metadata=_nested(30)))
    yield Case("own: metadata one too deep", BAD, job(good, metadata=_nested(32)))


def _nested(depth: int) -> dict[str, Any]:
    return {"a": _nested(depth - 1)} if depth > 1 else {}


def _fields(good: str) -> Iterator[Case]:
    yield Case("own: a language that there is not", FIELD, job(good, language="klingon"))
    yield Case("own: 10,000 languages", FIELD, job(good, languages=["en"] * 10_000))
    yield Case("own: an expiry beyond all calendars", FIELD, job(good, expires_at="9999-12-31T23:59:59-23:59"))
    yield Case("own: an expiry long past", "P expired", job(good, expires_at="0001-01-01T00:00:00Z"))
    astral = "\U0001d11e\u202e\u0301" * 1365  # four thousand characters, many thousand tokens
    yield Case("own: a prompt longer than the model's memory", "OK*", job(good, prompt=astral, language="en"))
    yield Case("own: hotwords longer than the model's memory", "OK*", job(good, hotwords=astral, language="en"))
    tokens = "<|endoftext|><|startoftranscript|><|notimestamps|><|0.00|>" * 20
    yield Case("own: a prompt of the model's own tokens", "OK*", job(good, prompt=tokens, language="en"))
    yield Case(
        "own: 16 beams, words and the text before",
        "OK*",
        job(good, beam_size=16, word_timestamps=True, condition_on_previous_text=True, language="en"),
    )
    yield Case("own: channels of a mono recording apart", "OK*", job(good, channels="split", language="en"))
    yield Case("own: who is told, inside", FIELD, job(good, webhook_url="http://169.254.169.254/latest/meta-data"))


def _records(good: str) -> Iterator[Case]:
    large = ("x-large", b"h" * (MEGABYTE - 50_000))
    yield Case("own: a header of nearly 1 MB", "OK", job(good), (large,))
    yield Case("own: a header of nearly 1 MB on what fails", BAD, b"{", (large,))
    yield Case("own: a key of nearly 1 MB on what fails", BAD, b"{", key=b"k" * (MEGABYTE - 50_000))
    yield Case("own: a value of nearly 1 MB", BAD, b"[" * (MEGABYTE - 50_000))
    many = tuple((f"h{number % 7}", b"x") for number in range(20_000))
    yield Case("own: 20,000 headers", "OK", job(good), many)
    yield Case("own: 20,000 headers on what fails", BAD, b"{", many)
    binary = (("", b""), ("\u202e\0\r\n\x1b[2J", bytes(range(256))), ("no value", b"\xff\xfe"))
    yield Case("own: headers of control characters and bytes on what fails", BAD, b"{", binary)
    yield Case("own: no key, no value, on what fails", BAD, b"", key=None)
    yield Case("own: a record from 1970", "OK", job(good), timestamp_ms=0)
    yield Case("own: a header whose name is not UTF-8", BAD, job(good), ((NAME, b"x"),), lane="strict", spoil="name")
    yield Case("own: a batch that unpacks to 100 MB", BAD, b"[" * (100 * MEGABYTE), lane="strict", codec="zstd")
    yield Case("own: what follows these", "OK", job(good), lane="strict")


def _forged_headers(good: str) -> Iterator[Case]:
    """Yield records that claim to be replays of failures that there are not, or that nobody asked for."""
    for name, value in {"no id": b"x", "nobody's id": str(uuid4()).encode(), "1 MB": b"0" * 900_000}.items():
        yield Case(f"own: forged replay of {name}", "OK", job(good), ((REPLAY_OF, value),))
    waits = ((NOT_BEFORE, str(FAR_MS).encode()), (RETRY_ROUND, b"-1"), (REPLAY_OF, str(uuid4()).encode()))
    yield Case("own: forged wait until 2096", "OK", job(good), waits)
    letter = (("v2td-id", b"0"), ("v2td-error-class", b"\xff"), ("v2td-truncated", b"1"))
    yield Case("own: forged headers of a dead letter", BAD, b"{", letter)


def _notifications(place: Place, sound: bytes) -> Iterator[Case]:
    odd = {
        "newlines": "a\nb\r\nc.flac",
        "../": "../../etc/passwd",
        "?#%": "a?versionId=x#y%2e%2e",
        "emoji": "📞\u202e.mp3",
    }
    for name, key in odd.items():
        expected = "P http_error" if name == "../" else "P not_found"  # MinIO takes no such key
        if name in ("?#%", "emoji"):
            place.objects[key] = sound
            expected = "OK"
        yield Case(f"own: an S3 key with {name}", expected, job(f"s3://{place.bucket}/{key}"))
        entry = aws_entry(quote_plus(key), bucket=place.bucket)
        yield Case(f"own: a notification of a key with {name}", expected, json.dumps({"Records": [entry]}).encode())
    nul = {"Records": [aws_entry("a%00b", bucket=place.bucket)]}
    yield Case("own: a notification of a key with NUL", FIELD, json.dumps(nul).encode())
    yield Case(
        "own: a notification of a bucket above", "P *", json.dumps({"Records": [aws_entry("x", bucket="..")]}).encode()
    )
    entries = [aws_entry("nothing", bucket=place.bucket)] * 100
    yield Case("own: 100 notifications in one", "P not_found", json.dumps({"Records": entries}).encode(), outcomes=100)
    yield Case("own: 1001 notifications in one", BAD, json.dumps({"Records": [{}] * 1001}).encode())
    mixed: dict[str, list[Any]] = {"Records": [7, None, [], {"eventName": "ObjectCreated:Put", "s3": []}]}
    yield Case("own: notifications of nothing", BAD, json.dumps(mixed).encode(), outcomes=4)
    inner = json.dumps(cloud_event(data={"audio_url": "file:///etc/passwd"})).encode()
    event = cloud_event(data_base64=base64.b64encode(inner).decode())
    yield Case("own: an event in an event", BAD, json.dumps(event).encode())
    once = cloud_event(data={"audio_url": "file:///etc/passwd", "id": "in an event"})
    yield Case(
        "own: an event of a file", "P url_forbidden", json.dumps(once).encode(), check=keeps(job_id="in an event")
    )
