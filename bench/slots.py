"""What another slot brings: the throughput of `raw` with 1, 2, 4… slots."""

from __future__ import annotations

import os
from statistics import median

from bench import contestants, corpus
from bench.context import Context, Findings, Lines, Series, Table
from bench.deployment import deploy
from v2td import bundled

ROUNDS = 3


async def measure(context: Context) -> Findings:
    """Answer with a curve; no key."""
    cpus = len(os.sched_getaffinity(0))
    counts = sorted({*(2**power for power in range(cpus.bit_length()) if 2**power <= cpus), cpus})
    model: bundled.Size = "base" if context.size == "full" else "tiny"
    clips = corpus.clips("3min" if context.size == "full" else "minute", cpus)
    measured: dict[int, list[float]] = {slots: [] for slots in counts}
    async with contestants.arena(context, bundled.model_folder(model)) as arena:
        for _ in range(ROUNDS):
            for slots in counts:
                measured[slots].append(await _throughput(arena, clips, slots))
                context.say(f"{slots} slots: {measured[slots][-1]:.1f} s of audio per second")
    speeds = {slots: median(each) for slots, each in measured.items()}
    rows = tuple((slots, speed, speed / speeds[1], speed / speeds[1] / slots) for slots, speed in speeds.items())
    x = tuple(float(slots) for slots in counts)
    curve = Series("measured", x, tuple(speeds.values()))
    ideal = Series("as many times one slot", x, tuple(speeds[1] * slots for slots in counts))
    return Findings(
        tables=(Table(f"Slots, model {model}", ("slots", "audio s per s", "× one slot", "of the ideal"), rows),),
        plots=(Lines("slots", f"Throughput by slots, model {model}", "slots", "audio s per s", (curve, ideal)),),
        notes=(f"Medians of {ROUNDS} rounds, interleaved.",),
    )


async def _throughput(arena: contestants.Arena, clips: tuple[corpus.Clip, ...], slots: int) -> float:
    async with deploy(arena.context, partitions=1) as place:
        config = place.config(contestants.daemon_config(arena, "full", {"engine": {"slots": slots}}))
        arguments = ["--config", str(config)]
        async with contestants.program("raw", "raw", arguments, arena.log("raw")) as raw:
            await raw.hear(corpus.clips("3s", 1))
            return sum(clip.seconds for clip in clips) / (await raw.hear(clips)).seconds
