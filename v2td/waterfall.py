"""A job's stages and windows as bars on one axis of time: for the page, and for whoever draws in characters. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from v2td.stages import Step

STAGES = ("fetch", "queue", "prepare", "transcribe")  # in this order, where a row tells only how long each took


@dataclass(frozen=True, slots=True)
class Bar:
    """What took from `start` on, since the job began, so many `seconds`.

    `name` is a stage, `window` or `commit`. A window has its index, its slot (-1: it was heard before a restart), the
    windows that it shared the slot with, itself included, and why its text was doubted.
    """

    name: str
    start: float
    seconds: float
    attempt: int
    window: int | None = None
    slot: int | None = None
    batch: int | None = None
    flags: tuple[str, ...] = ()


def bars(timings: Mapping[str, Any], steps: Sequence[Step] = (), committed: float | None = None) -> list[Bar]:
    """Return the bars of a job, in order of start.

    `timings` are its row's; `steps` what the process remembers of it, and `committed` when Kafka had its offset, in
    seconds since it began. Without steps the stages are laid end to end, since a row says how long each took, but not
    when it began; decoding and transcribing, which overlap, begin together then.
    """
    last = timings.get("attempts", 1)
    found = [Bar(each.stage, each.start, each.seconds, each.attempt) for each in steps] or _end_to_end(timings, last)
    found += [
        Bar(
            *("window", float(each["start"]), float(each["seconds"]), last),
            window=each["index"],
            slot=each.get("slot"),  # whisper.cpp has none
            batch=each.get("batch"),
            flags=tuple(each.get("flags", ())),
        )
        for each in timings.get("windows", ())
    ]
    if committed is not None:
        written = max((each.start + each.seconds for each in steps), default=committed)
        found.append(Bar("commit", written, max(0.0, committed - written), last))
    return sorted(found, key=lambda bar: bar.start)


def _end_to_end(timings: Mapping[str, Any], attempt: int) -> list[Bar]:
    found, start = [], 0.0
    for stage in STAGES:
        if stage not in timings:
            continue
        found.append(Bar(stage, start, float(timings[stage]), attempt))
        if stage != "prepare":
            start += float(timings[stage])
    return found
