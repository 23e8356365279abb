"""What the contestants share that hear one recording after the other, in a process of one thread for each core."""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

from bench.contestants.program import Run, answer_requests, claimed_stdout

Transcribe = Callable[[str, str], str]  # a path and a language to the text


def serve(description: str | None, load: Callable[[str], None], transcribe: Transcribe) -> None:
    """Load the model that --model names in each process, then answer requests until stdin ends."""
    answers = claimed_stdout()
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", required=True)
    processes = len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    loaded = context.Barrier(processes + 1)
    with ProcessPoolExecutor(processes, context, _begin, (load, parser.parse_args().model, loaded)) as pool:
        for _ in range(processes):
            pool.submit(os.getpid)
        loaded.wait()
        asyncio.run(answer_requests(answers, partial(_hear, pool, transcribe)))


def _begin(load: Callable[[str], None], model: str, loaded: threading.Barrier) -> None:
    load(model)
    loaded.wait()


async def _hear(pool: ProcessPoolExecutor, transcribe: Transcribe, clips: list[dict[str, Any]]) -> Run:
    loop = asyncio.get_running_loop()
    run = Run()

    async def hear_one(clip: dict[str, Any]) -> None:
        run.finish(clip["name"], await loop.run_in_executor(pool, transcribe, clip["path"], clip["language"]))

    await asyncio.gather(*(hear_one(clip) for clip in clips))
    return run
