"""How long a short message waits with spare capacity, and with a recording of hours in the same queue."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np

from bench import contestants, corpus
from bench.context import Context, Distribution, Findings, Table
from bench.corpus import Clip
from v2td import bundled

LOAD = 0.5  # of what the daemon could do if there were nothing but short messages


async def measure(context: Context) -> Findings:
    """Send short messages at random times, alone and beside the long recording; answer with the times to their rows."""
    model: bundled.Size = "tiny" if context.size == "full" else "micro"
    (long,) = corpus.clips("3hours" if context.size == "full" else "10min", 1)
    clips = corpus.clips("3s", 24)
    seconds = context.by_size(10, 20, 180)
    async with (
        contestants.arena(context, bundled.model_folder(model)) as arena,
        # At the end the long recording is left behind: nothing is to wait for it.
        contestants.v2td_daemon(arena, "full", {"pipeline": {"drain_seconds": 1}}) as daemon,
    ):
        await daemon.hear(clips[:4])
        capacity = len(clips) / (await daemon.hear(clips)).seconds
        arrivals = _arrivals(clips, LOAD * capacity, seconds)
        context.say(f"{capacity:.1f} messages per second are possible; sending {len(arrivals)} in {seconds:.0f} s")
        alone = await daemon.trickle(arrivals)
        await daemon.begin(long)
        beside = await daemon.trickle(arrivals)
    values = {
        f"wait_{name}_p{share}_seconds": _percentile(waits, share)
        for name, waits in (("alone", alone), ("beside_long", beside))
        for share in (50, 99)
    }
    rows = tuple((f"p{share}", _percentile(alone, share), _percentile(beside, share)) for share in (50, 90, 99))
    columns = ("", "alone", f"beside {long.seconds / 60:.0f} minutes")
    waits = Distribution(
        "waiting",
        f"Seconds from message to row, at {LOAD:.0%} of capacity",
        "seconds",
        (("alone", tuple(alone)), (columns[2], tuple(beside))),
    )
    table = Table(f"Seconds from message to row, messages of 3 s, model {model}", columns, rows)
    return Findings(values, (table,), (waits,))


def _percentile(values: Sequence[float], share: int) -> float:
    return float(np.percentile(values, share))


def _arrivals(clips: Sequence[Clip], per_second: float, seconds: float) -> list[tuple[float, Clip]]:
    """Return times of a Poisson process, the same every time, each with a clip."""
    random = Random(1)
    arrivals: list[tuple[float, Clip]] = []
    at = random.expovariate(per_second)
    while at < seconds:
        arrivals.append((at, clips[len(arrivals) % len(clips)]))
        at += random.expovariate(per_second)
    return arrivals
