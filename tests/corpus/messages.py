"""M1 to M22: records that are no jobs, and jobs that say more than they should."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.corpus.case import Case, Place, Row, Spoil, job
from v2td.bundled.recordings import AUDIO

BAD = "P bad_message"
FIELD = "P bad_field"
SQL = "Robert'); DROP TABLE transcriptions; --"
CONTROL = "line\r\nv2td: forged \x1b[31mred\x1b[0m\x07"
WRITING = "\u202eevil.txt\u202c שלום مرحبا 👩‍👩‍👧‍👦 e\u0301 𝄞"


def cases(place: Place) -> Iterator[Case]:
    """Yield M1 to M22."""
    good = place.web.body("recording.flac", (AUDIO / "en-01.flac").read_bytes())
    yield from _no_jobs(good)
    yield from _bad_fields(good)
    yield from _verbatim(good)
    yield from _spoilt(good)


def _no_jobs(good: str) -> Iterator[Case]:
    yield Case("M1 tombstone", BAD, None)
    yield Case("M2 empty", BAD, b"")
    yield Case("M3 invalid UTF-8", BAD, b'{"audio_url": "\xff\xfe\xc3"}')
    yield Case("M4 UTF-16", BAD, job(good).decode().encode("utf-16"))
    yield Case("M5 truncated JSON", BAD, job(good)[:-2])
    for number, text in enumerate((b"[]", b'"text"', b"7", b"null", b"true", b"[{}]"), 1):
        yield Case(f"M6 not an object {number}", BAD, text)
    yield Case("M7 arrays nested 100k deep", BAD, b"[" * 100_000)
    yield Case("M7 objects nested 30k deep", BAD, b'{"a":' * 30_000 + b"1" + b"}" * 30_000)
    yield Case("M7 metadata nested 100k deep", BAD, b'{"audio_url":"x","metadata":{"a":' + b"[" * 100_000)
    yield Case("M8 an integer of 5000 digits", BAD, b'{"audio_url": "x", "priority": ' + b"9" * 5000 + b"}")
    for literal in ("NaN", "Infinity", "-Infinity"):
        yield Case(f"M9 {literal}", BAD, f'{{"audio_url": "x", "metadata": {{"a": {literal}}}}}'.encode())
    wrong: dict[str, Any] = {"audio_url": 7, "id": ["x"], "beam_size": "5", "word_timestamps": 1, "metadata": "{}"}
    for key, value in wrong.items():
        yield Case(f"M10 {key} of a wrong type", BAD, json.dumps({"audio_url": good, key: value}).encode())
    yield Case("M11 no URL", BAD, b'{"id": "x"}')
    yield Case("M11 an empty URL", BAD, b'{"audio_url": ""}')
    yield Case("M12 over 256 KiB", BAD, job(good, metadata={"a": "x" * 262_144}))
    yield Case("M13 duplicate keys", BAD, f'{{"audio_url": "{good}", "audio_url": "file:///etc/passwd"}}'.encode())


def _bad_fields(good: str) -> Iterator[Case]:
    for key in ("id", "prompt", "tenant"):
        yield Case(f"M14 NUL in {key}", FIELD, job(good, **{key: "a\0b"}))
    yield Case("M14 NUL in audio_url", FIELD, job(good + "\0"))
    yield Case("M14 NUL in a key of metadata", FIELD, job(good, metadata={"a\0b": 1}))
    yield Case("M15 lone surrogate", FIELD, job(good, id="\ud800"))
    yield Case("M15 lone surrogate deep in metadata", FIELD, job(good, metadata={"a": [{"b": "\udfff"}]}))
    yield Case("M16 an id of 10 kB", FIELD, job(good, id="x" * 10_000))


def _verbatim(good: str) -> Iterator[Case]:
    for name, text in {"M17 SQL": SQL, "M18 CRLF and ANSI": CONTROL, "M19 right to left, emoji": WRITING}.items():
        value = job(good, id=text, tenant=text, prompt=text, metadata={text: text})
        yield Case(f"{name} as text", "OK", value, check=keeps(job_id=text, tenant=text, metadata={text: text}))
    first, again = (
        Case(f"M20 the same id {which}", "OK", job(good, id="twice"), check=keeps(job_id="twice"))
        for which in ("once", "and again")
    )
    yield from (first, again)


def _spoilt(good: str) -> Iterator[Case]:
    """Yield batches that are spoilt on the broker's disk, each with a good one behind it: they may not be one gap."""
    spoilt: dict[str, Spoil] = {
        "M21 corrupt batch": "nonsense",
        "M22 unknown codec": 7,
        "M22 a codec that it is not": 2,
    }
    for name, how in spoilt.items():
        yield Case(name, BAD, job(good), lane="strict", spoil=how)
        yield Case(f"{name}: what follows", "OK", job(good), lane="strict")


def keeps(**columns: Any) -> Callable[[Row], str | None]:
    """Return a check that the row has these values, JSON as its value."""

    def check(row: Row) -> str | None:
        for name, wanted in columns.items():
            found = json.loads(row[name]) if isinstance(wanted, dict) else row[name]
            if found != wanted:
                return f"{name} is {found!r:.80}"
        return None

    return check
