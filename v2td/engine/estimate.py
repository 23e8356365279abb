"""How large a batch should be (pure): within the expected time that it may take, and within a slot's part."""

from __future__ import annotations

RECENT = 0.2  # what the last batch counts in the estimate


class CostEstimate:
    """Seconds that one full window costs, as a moving average over batches.

    Windows cost less together than alone, so an estimate from small batches says too much for large ones, never too
    little: the limit grows step by step.
    """

    def __init__(self) -> None:
        self._seconds: float | None = None  # for weight 1.0

    @property
    def seconds(self) -> float | None:
        """Of a full window (weight 1.0); None before the first batch."""
        return self._seconds

    def observe(self, weight: float, seconds: float) -> None:
        """Learn from a batch of this weight (more than 0) that took so many seconds."""
        each = seconds / weight
        self._seconds = each if self._seconds is None else self._seconds + RECENT * (each - self._seconds)

    def left(self, weight: float, seconds: float) -> float:
        """Return the weight that is still to be done, as far as one can tell, `seconds` after a batch began."""
        return max(0.0, weight - seconds / self._seconds) if self._seconds else weight

    def limit(self, batch_windows: float, batch_seconds_max: float) -> float:
        """Return the weight of the heaviest batch: `batch_windows`, or what is expected to take `batch_seconds_max`.

        At least 1.0, a full window; just that before the first batch.
        """
        if not self._seconds:
            return 1.0
        return max(1.0, min(batch_windows, batch_seconds_max / self._seconds))


def share_of_slot(waiting_weight: float, slots: int, under_way: float, limit: float) -> float:
    """Return the weight that a slot which is free should take at most, of `waiting_weight`.

    Its part of all that is left to do, what is left of the other slots' batches (`under_way`) included: then all
    slots end together when a lone recording ends, and a slot takes all of what waits when no other will soon be
    free for it. Rounded to full windows, at least one: the encoder's cost is the same when a window is half empty.
    """
    return min(limit, max(1.0, round((waiting_weight + under_way) / slots)))
