"""What an input is, and which fate it is to have."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from tests.corpus.web import HostileWeb, Trap
from v2td.jobs import Headers

Lane = Literal["doors", "audio", "strict", "segv", "hang", "oom"]
Row = Mapping[str, Any]
Spoil = int | Literal["nonsense", "name"]

OURS = ("poison", "crash", "unwritable")  # how the classes of faults end that may well be ours
NAME = "x-header-name"  # what `spoil="name"` makes bytes of that are no text
MAX_RSS_BYTES = 400_000_000  # of the decoder child: an idle one has about 150 MB


@dataclass(frozen=True, slots=True)
class Case:
    """A Kafka record and its fate.

    `expected` are patterns of fates with | between: `OK`, `OK empty`, `OK truncated`, `OK truncated empty`, `P CLASS`
    (failed at the first attempt) and `T CLASS` (failed after all of them). `outcomes` is how many rows it makes, all of
    the same fate. `check` looks at each row and says what is wrong with it. `slow` ones are
    for `make corpus` only. `spoil` is the codec that its batch is said
    to have on the broker's disk, or `nonsense`.
    """

    name: str
    expected: str
    value: bytes | None
    headers: Headers = ()
    key: bytes | None = b"key"
    timestamp_ms: int | None = None
    lane: Lane = "doors"
    outcomes: int = 1
    check: Callable[[Row], str | None] | None = None
    max_rss_bytes: int = MAX_RSS_BYTES
    slow: bool = False
    spoil: Spoil | None = None
    codec: str | None = None

    def meets(self, fate: str) -> bool:
        """Whether a fate is an expected one; a bug or a crash of ours never is unless it is named."""
        patterns = [pattern.strip() for pattern in self.expected.split("|")]
        return fate in patterns or (not fate.endswith(OURS) and any(fnmatchcase(fate, pattern) for pattern in patterns))


@dataclass(frozen=True, slots=True)
class Place:
    """Where inputs are made: the servers that serve them, a bucket, and a folder that the daemons may read.

    `objects` are put into the bucket before anything is sent.
    """

    web: HostileWeb
    trap: Trap
    bucket: str
    folder: Path
    https: str  # address of a server whose certificate nobody trusts
    objects: dict[str, bytes] = field(default_factory=dict)


def job(url: str, **fields: Any) -> bytes:
    """Return the message for a recording."""
    return json.dumps({"audio_url": url} | fields).encode()


def fate(row: Row) -> str:
    """Return what became of an input: a row of transcriptions or failures."""
    if "error_class" in row:
        return f"{'P' if row['attempts'] == 1 else 'T'} {row['error_class']}"
    return "OK" + " truncated" * bool(row["truncated"]) + " empty" * bool(row["text"] == "")
