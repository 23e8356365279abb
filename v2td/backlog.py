"""The backlog in hours of audio, and what it takes to work it off. Pure."""

from __future__ import annotations

from dataclasses import dataclass

DRAIN_TARGET_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits, in records and seconds of audio, and how long that takes at the present speed.

    `drain_seconds` and `cores_needed` (busy ones, to be done in an hour) are None while no speed is known.
    """

    records: int
    audio_seconds: float
    drain_seconds: float | None
    cores_needed: float | None


def backlog(
    records: int, mean_audio_seconds: float | None, audio_per_second: float | None, audio_per_core_second: float | None
) -> Backlog:
    """Return the backlog of so many records.

    `mean_audio_seconds` is that of recent recordings, None before the first. `audio_per_second` is what is transcribed
    at present, in seconds of audio, by all that share the backlog; `audio_per_core_second` what one busy core does.
    """
    audio = records * (mean_audio_seconds or 0.0)
    known = mean_audio_seconds is not None or not records
    drain = audio / audio_per_second if known and audio_per_second else None
    cores = audio / DRAIN_TARGET_SECONDS / audio_per_core_second if known and audio_per_core_second else None
    return Backlog(records, audio, 0.0 if not records else drain, 0.0 if not records else cores)
