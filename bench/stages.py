"""Which processes the CPU time goes to while the real daemon transcribes: the loop, the decoders, the slots."""

from __future__ import annotations

import os
import time

from bench.context import Bars, Cell, Context, Findings, Table
from bench.deployment import MeasureError, Running, deploy
from bench.file_server import file_server
from bench.load import short_recordings, speech_messages
from bench.null_pipeline import QUIET
from v2td.bundled.model import Size, model_folder
from v2td.bundled.recordings import AUDIO

TIMEOUT_SECONDS = 900.0

Stages = dict[str, float]  # CPU seconds


async def measure(context: Context) -> Findings:
    """Answer with a table and a plot; there is no key."""
    sizes: dict[str, tuple[Size, ...]] = {"quick": ("micro",), "default": ("tiny",), "full": ("micro", "tiny", "base")}
    count = int(context.by_size(24, 48, 480))
    rows: list[tuple[Cell, ...]] = []
    bars: list[tuple[str, float]] = []
    for size in sizes[context.size]:
        seconds, stages = await _run(context, str(model_folder(size)), count)
        audio = sum(clip.seconds for clip in short_recordings()) / len(short_recordings()) * count
        total = sum(stages.values())
        context.say(f"{size}: {audio / seconds:.1f} × real time")
        for stage, cpu in stages.items():
            rows.append((size, stage, round(cpu, 2), round(cpu / total, 4), round(cpu / audio * 1000, 2)))
            bars.append((f"{size}: {stage}", cpu / total))
        rows.append((size, "idle", round(seconds * len(os.sched_getaffinity(0)) - total, 2), None, None))
    table = Table(
        "CPU time by stage",
        ("model", "stage", "CPU s", "share", "CPU ms per second of audio"),
        tuple(rows),
        f"{count} short messages; idle is what the machine had besides, others' work included.",
    )
    return Findings({}, (table,), (Bars("stages", "CPU time by stage", "share", tuple(bars)),))


async def _run(context: Context, model: str, count: int) -> tuple[float, Stages]:
    """Return the seconds from the first message to the last row, and the CPU time in them."""
    async with deploy(context) as deployment, file_server(AUDIO) as url:
        async with deployment.daemon((), QUIET | {"engine": {"model": model}}) as daemon:
            before = await _stages(daemon)
            began = time.monotonic()
            await deployment.produce(speech_messages(count, url))
            await deployment.until_transcribed(count, TIMEOUT_SECONDS)
            seconds = time.monotonic() - began
            after = await _stages(daemon)
        await deployment.check_all_done(count)
    if idle := [stage for stage in after if after[stage] <= before[stage]]:
        raise MeasureError(f"no CPU time was seen in: {', '.join(idle)}")
    return seconds, {stage: after[stage] - before[stage] for stage in after}


async def _stages(daemon: Running) -> Stages:
    slots = {slot["pid"] for slot in (await daemon.status())["slots"]}
    children = daemon.children_cpu_seconds()
    if not slots or not slots <= children.keys():
        raise MeasureError("the slots' processes are not the daemon's children")
    return {
        "loop: consume, fetch, write, commit": daemon.cpu_seconds(),
        "decoders: decode, VAD": sum(cpu for pid, cpu in children.items() if pid not in slots),
        "slots: inference": sum(cpu for pid, cpu in children.items() if pid in slots),
    }
