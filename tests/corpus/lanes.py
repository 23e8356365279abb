"""The daemons that the corpus goes through, each in a world of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.corpus.case import Lane
from tests.corpus.downloads import MAX_BYTES
from tests.corpus.web import HOST

ATTEMPTS = 2

# Short times, so that what lasts until a limit lasts seconds; no limit is laxer than by default.
SETTINGS: Mapping[str, Any] = {
    "pipeline__attempts": ATTEMPTS,
    "pipeline__retry_initial_seconds": 0.1,
    "pipeline__retry_max_seconds": 0.5,
    "fetch__allowed_networks": [f"{HOST}/32"],
    "fetch__concurrency": 64,  # many wait for a limit at once
    "fetch__connect_seconds": 4,
    "fetch__read_seconds": 4,
    "fetch__total_seconds": 8,
    "fetch__max_bytes": 64_000_000,
    "speech__decoders": 1,  # whose memory is then the input's
    "speech__max_audio_seconds": 600,
    "speech__deadline_seconds": 30,
    "engine__slots": 1,
    "engine__threads": 1,
}
HANG_SECONDS = 3


@dataclass(frozen=True, slots=True)
class Daemon:
    """One daemon's part; `one_by_one` sends an input when the one before is done, so that its memory is known."""

    lane: Lane
    one_by_one: bool = False
    failpoints: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


DAEMONS = (
    Daemon("doors", settings={"fetch__max_bytes": MAX_BYTES}),
    Daemon("audio", one_by_one=True),
    Daemon("strict", settings={"speech__truncated": "fail"}),
    Daemon("segv", failpoints="decoder.piece=segv@*"),
    Daemon("hang", failpoints="decoder.piece=hang@*", settings={"speech__deadline_seconds": HANG_SECONDS}),
    Daemon("oom", failpoints="decoder.piece=oom@*"),
)
