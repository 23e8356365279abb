"""When to try again (pure): exponential backoff with full jitter, an asked-for pause honoured up to a cap."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses of `initial * factor ** n`, at most `maximum` seconds, each drawn from [0, that]."""

    initial: float = 1.0
    factor: float = 2.0
    maximum: float = 60.0

    def pause(self, failures: int, random: Random, asked: float | None = None) -> float:
        """Return the seconds to wait after `failures` (1, 2, …) failed attempts.

        What the other side `asked` for (Retry-After) is a lower bound, up to the maximum.
        """
        exponent = min(failures - 1, 64)  # beyond it only the maximum counts, and floats end
        drawn = random.uniform(0, min(self.maximum, self.initial * self.factor**exponent))
        return drawn if asked is None else max(drawn, min(asked, self.maximum))


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number or an HTTP date; None when it says neither."""
    if value is None:
        return None
    if match := re.fullmatch(r"\s*([0-9]{1,9})\s*", value):
        return float(match[1])
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:  # "-0000": UTC, its place unknown
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())
