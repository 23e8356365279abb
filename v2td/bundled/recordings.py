"""The bundled recordings: synthetic speech in English and Vietnamese whose text and times are known exactly."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

AUDIO = Path(__file__).parent / "data" / "audio"


@dataclass(frozen=True, slots=True)
class SpokenSegment:
    """One sentence as it was spoken; times in seconds of the recording."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Recording:
    """A bundled audio file and what is said in it; `language` is a code of Whisper's, en or vi."""

    path: Path
    language: str
    seconds: float
    text: str
    segments: tuple[SpokenSegment, ...]

    @property
    def name(self) -> str:
        """The file's name, unique among the recordings."""
        return self.path.name


@cache
def recordings() -> tuple[Recording, ...]:
    """All bundled recordings, in the order of their names: six short ones and a long one per language."""
    manifest = json.loads((AUDIO / "manifest.json").read_text(encoding="utf-8"))
    found = (
        Recording(
            path=AUDIO / entry["file"],
            language=entry["language"],
            seconds=entry["seconds"],
            text=entry["text"],
            segments=tuple(SpokenSegment(**segment) for segment in entry["segments"]),
        )
        for entry in manifest
    )
    return tuple(sorted(found, key=lambda recording: recording.name))
