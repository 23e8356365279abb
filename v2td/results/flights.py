"""Which recordings are being transcribed now: the first goes ahead, the others wait for its text. No I/O.

Who waits survives the one ahead: when it fails, is cancelled or dies, one of those who wait goes ahead. Should that
one fail, too, two go at once, then four: what fails for all of them fails soon, and not one after the other.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from itertools import count
from operator import attrgetter

from v2td.results.found import Found

# A text stays in memory for a while: until its row is durable, and known to a replica.
KEPT_SECONDS = 60.0
KEPT_WEIGHT = 50_000  # segments and words, some 15 MB


@dataclass(slots=True, eq=False)
class Flight:
    """One job that goes ahead with a recording; whoever wants one of its digests and is less urgent waits."""

    audio_sha256: str
    digests: frozenset[str]
    priority: int
    landed: bool = False


@dataclass(slots=True, eq=False)
class _Waiting:
    digests: frozenset[str]
    priority: int
    arrival: int
    told: asyncio.Future[Found | None]  # None: look again who is ahead


@dataclass(slots=True, eq=False)
class _Same:
    """Those with the same recording."""

    flights: list[Flight] = field(default_factory=list)
    waiting: dict[int, _Waiting] = field(default_factory=dict)  # by arrival
    failures: int = 0  # of those that were ahead


class Flights:
    """Tells who goes ahead. Of one event loop, and so of one daemon."""

    def __init__(self) -> None:
        self._same: dict[str, _Same] = {}
        self._arrivals = count()
        self._kept = Kept()

    def __len__(self) -> int:
        return len(self._same)

    async def join(self, audio_sha256: str, digests: frozenset[str], priority: int) -> Found | Flight:
        """Return the text as soon as another job has it, or a flight, which the caller must `land`.

        Who is more urgent than all that are ahead does not wait for them. Cancellation leaves nothing behind.
        """
        arrival = next(self._arrivals)
        while True:
            found = self._kept.get(audio_sha256, digests)
            if found is not None:
                return found
            same = self._same.setdefault(audio_sha256, _Same())
            ahead = sum(each.priority <= priority and not digests.isdisjoint(each.digests) for each in same.flights)
            if ahead < max(1, 2 ** (same.failures - 1)):
                flight = Flight(audio_sha256, digests, priority)
                same.flights.append(flight)
                return flight
            told: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()
            same.waiting[arrival] = _Waiting(digests, priority, arrival, told)
            try:
                found = await told
            finally:
                del same.waiting[arrival]
                self._forget(audio_sha256, same)
            if found is not None:
                return found

    def land(self, flight: Flight, found: Found | None, *, failed: bool = True) -> None:
        """End a flight: with the text, or so that others go ahead. Only the first call counts.

        `failed` is False for one that was stopped, which says nothing about the recording.
        """
        if flight.landed:
            return
        flight.landed = True
        same = self._same[flight.audio_sha256]
        same.flights.remove(flight)
        if found is not None:
            found = replace(found, level="in_flight")
            self._kept.put(found)
        fits = found is not None and found.text_sha256 in flight.digests
        same.failures = 0 if fits else same.failures + failed
        # The most urgent is woken first, and finds nobody ahead.
        for waiting in sorted(same.waiting.values(), key=attrgetter("priority", "arrival")):
            if waiting.told.done():
                continue
            if found is not None and found.text_sha256 in waiting.digests:
                waiting.told.set_result(found)
            elif not waiting.digests.isdisjoint(flight.digests):
                waiting.told.set_result(None)
        self._forget(flight.audio_sha256, same)

    def keep(self, found: Found) -> None:
        """Let those who come next have a text that was transcribed elsewhere."""
        self._kept.put(replace(found, level="in_flight"))

    def _forget(self, audio_sha256: str, same: _Same) -> None:
        if not same.flights and not same.waiting and self._same.get(audio_sha256) is same:
            del self._same[audio_sha256]


class Kept:
    """The texts of the last minute, bounded by what they weigh; the newest is always there."""

    def __init__(self, seconds: float = KEPT_SECONDS, weight: int = KEPT_WEIGHT) -> None:
        self._seconds = seconds
        self._room = weight
        self._kept: OrderedDict[tuple[str, str], tuple[float, int, Found]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, audio_sha256: str, digests: frozenset[str]) -> Found | None:
        """Return the newest text of a recording under one of the digests."""
        self._drop()
        held = [each for digest in digests if (each := self._kept.get((audio_sha256, digest))) is not None]
        return max(held, key=lambda each: each[0])[2] if held else None

    def put(self, found: Found) -> None:
        """Keep a text in place of the one before."""
        key = (found.audio_sha256, found.text_sha256)
        self._remove(key)
        weight = 1 + sum(1 + len(segment.words or ()) for segment in found.segments)
        self._room -= weight
        self._kept[key] = (time.monotonic(), weight, found)
        self._drop()

    def _drop(self) -> None:
        oldest_allowed = time.monotonic() - self._seconds
        while self._kept:
            key, (at, _weight, _found) = next(iter(self._kept.items()))
            if at >= oldest_allowed and (self._room >= 0 or len(self._kept) == 1):
                return
            self._remove(key)

    def _remove(self, key: tuple[str, str]) -> None:
        held = self._kept.pop(key, None)
        if held is not None:
            self._room += held[1]
