"""How many requests one client may make: a token bucket each (pure; time comes in)."""

from __future__ import annotations

from collections import OrderedDict

BURST_SECONDS = 10.0
MAX_CLIENTS = 4096  # remembered; whoever asked longest ago is forgotten, which only ever favours it


class RateLimit:
    """At most `per_second` requests of a client in the long run, and ten seconds' worth of them at once."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._burst = per_second * BURST_SECONDS
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests left, and when that was

    def wait(self, client: str, now: float) -> float:
        """Take note of a request; seconds until it may come again, 0.0 when it may come now.

        `now` is in seconds and never goes back.
        """
        left, then = self._buckets.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._per_second)
        allowed = left >= 1
        self._buckets[client] = (left - 1 if allowed else left, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self._per_second
