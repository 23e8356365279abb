"""How fast each contestant gets through the same backlog, in turn: the ratios that everything else serves."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

from bench import contestants, corpus, throughput_report
from bench.contestants import Arena, Contestant, ContestError
from bench.context import Context, Findings
from bench.corpus import Clip
from bench.deployment import deploy
from bench.programme import OPEN_SECONDS, PROGRAMMES, Contest, Programme, expected_contest_seconds
from bench.trials import Trial, Trials
from bench.words import word_errors
from v2td import bundled

WARM_UP = ("3s", 1)
SETTLE_SECONDS = 0.5  # before each run: the OpenMP threads of who was last spin for a while, and offsets are committed


async def measure(context: Context) -> Findings:
    """Hold the contests of this run's size, one model after the other."""
    return await hold_all(context, PROGRAMMES[context.size])


async def hold_all(context: Context, programmes: Sequence[Programme]) -> Findings:
    """Hold the contests of some programmes and report on them."""
    for programme in programmes:
        _announce(context, programme)
    held = [(programme, *await _hold(context, programme)) for programme in programmes]
    return throughput_report.findings(held)


async def _hold(context: Context, programme: Programme) -> tuple[Trials, list[str]]:
    """Return the runs, and what went wrong: a contestant that fails takes no further part."""
    trials = Trials()
    problems: list[str] = []

    def fail(name: str, when: str, error: Exception) -> None:
        problems.append(f"{programme.model}: {name} failed ({when}): {type(error).__name__}: {error}")
        context.say(problems[-1])

    async with AsyncExitStack() as stack:
        ready = await _open(stack, context, programme, fail)
        for contest in programme.contests:
            clips = _clips(contest)
            for number in range(contest.rounds):
                for name in contest.line_up(number):
                    if name not in ready:
                        continue
                    try:
                        trial = await _run(contest, name, ready[name], clips)
                    except (ContestError, TimeoutError) as error:
                        fail(name, contest.workload.name, error)
                        del ready[name]
                        continue
                    trials.add(trial)
                    context.say(
                        f"{programme.model} {contest.workload.name} {number + 1}/{contest.rounds} {name}: "
                        f"{trial.audio_seconds:.0f} s of audio in {trial.seconds:.1f} s "
                        f"({trial.throughput:.1f}x), word error rate {trial.word_errors.rate:.1%}"
                    )
    return trials, problems


async def _run(contest: Contest, name: str, contestant: Contestant, clips: Sequence[Clip]) -> Trial:
    await asyncio.sleep(SETTLE_SECONDS)
    heard = await contestant.hear(clips)
    return Trial(
        workload=contest.workload.name,
        contestant=name,
        audio_seconds=sum(clip.seconds for clip in clips),
        seconds=heard.seconds,
        cpu_seconds=heard.cpu_seconds,
        peak_rss_bytes=heard.peak_rss_bytes,
        word_errors=word_errors({clip.name: clip.text for clip in clips}, heard.texts),
        latencies=tuple(sorted(heard.finished.values())),
    )


async def _open(
    stack: AsyncExitStack, context: Context, programme: Programme, fail: Callable[[str, str, Exception], None]
) -> dict[str, Contestant]:
    """Start everybody who takes part, all at once; return those who became ready, warm."""
    context.say(f"starting {', '.join(programme.contestants)}")
    model = await asyncio.to_thread(bundled.model_folder, programme.model)
    ggml = await asyncio.to_thread(bundled.ggml_file, programme.model)
    arena = await stack.enter_async_context(contestants.arena(context, model))
    # The config of `engine` and `raw` is the daemon's own; the topic and the database in it are not used.
    place = await stack.enter_async_context(deploy(context, partitions=1))
    config = str(place.config(contestants.daemon_config(arena, "full")))
    warm_up = corpus.clips(*WARM_UP)
    ready: dict[str, Contestant] = {}

    async def start(name: str) -> None:
        try:
            contestant = await stack.enter_async_context(_contestant(name, arena, config, ggml))
            await contestant.hear(warm_up)
            ready[name] = contestant
        except (ContestError, TimeoutError) as error:
            fail(name, "start", error)

    async with asyncio.TaskGroup() as group:
        for name in programme.contestants:
            group.create_task(start(name))
    return ready


def _contestant(name: str, arena: Arena, config: str, ggml: Path) -> AbstractAsyncContextManager[Contestant]:
    cpus = _cpus()
    programs = {
        "engine": ["--config", config],
        "raw": ["--config", config],
        "batched": ["--model", str(arena.model)],
        "whisper_cpp": ["--model", str(ggml)],
    }
    if (arguments := programs.get(name)) is not None:
        return contestants.program(name, name, arguments, arena.log(name))
    match name:
        case "original":
            return contestants.original(arena)
        case "optimized":
            return contestants.optimized(arena, cpus)
        case "optimized_double":
            return contestants.optimized(arena, 2 * cpus)
        case _:
            return contestants.v2td_daemon(arena, name.removeprefix("v2td_"))


def _clips(contest: Contest) -> list[Clip]:
    """Return the recordings, long ones first: what waits longest to be begun decides the end."""
    counts = contest.workload.counts(_cpus())
    return [clip for kind, count in counts.items() for clip in corpus.clips(kind, count)]


def _announce(context: Context, programme: Programme) -> None:
    expected = {
        contest.workload.name: expected_contest_seconds(contest, programme.model, _cpus())
        for contest in programme.contests
    }
    each = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in expected.items())
    total = OPEN_SECONDS + sum(expected.values())
    context.say(f"plan with the model {programme.model}: {each}; about {total:.0f} s on an idle machine")


def _cpus() -> int:
    return len(os.sched_getaffinity(0))
