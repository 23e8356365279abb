"""Short messages of real speech for the real daemon: what the measures of a working daemon have in common."""

from __future__ import annotations

import json
from collections.abc import Iterator

from v2td.bundled.recordings import Recording, recordings


def short_recordings() -> list[Recording]:
    """Return the bundled recordings of some seconds each."""
    return [each for each in recordings() if each.seconds < 15]


def speech_messages(count: int, url: str) -> Iterator[bytes]:
    """Yield messages that name the short recordings in turns, below `url`, with their language."""
    clips = short_recordings()
    for number in range(count):
        clip = clips[number % len(clips)]
        yield json.dumps(
            {"audio_url": f"{url}/{clip.name}", "id": f"bench-{number}", "language": clip.language}
        ).encode()
