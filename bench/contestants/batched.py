"""faster-whisper's BatchedInferencePipeline in a naive loop: a process for each core, one recording after the other.

Processes of one thread, since that is its best: two threads on one window are 1.8 times as fast as one. With
timestamps, since without them (its default) the bundled model leaves out every other sentence.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

from faster_whisper import BatchedInferencePipeline, WhisperModel

from bench.contestants.program import Run, answer_requests, claimed_stdout

BEAM_SIZE = 5
BATCH_SIZE = 8

_pipeline: BatchedInferencePipeline | None = None


def _load(model: str, loaded: threading.Barrier) -> None:
    global _pipeline  # noqa: PLW0603 (a process of a pool keeps what its initializer made in a global)
    _pipeline = BatchedInferencePipeline(WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=1))
    loaded.wait()


def _transcribe(path: str, language: str) -> str:
    assert _pipeline is not None
    segments, _ = _pipeline.transcribe(
        path, language=language, beam_size=BEAM_SIZE, batch_size=BATCH_SIZE, without_timestamps=False
    )
    return " ".join(segment.text.strip() for segment in segments)


async def _hear(pool: ProcessPoolExecutor, clips: list[dict[str, Any]]) -> Run:
    loop = asyncio.get_running_loop()
    run = Run()

    async def hear_one(clip: dict[str, Any]) -> None:
        run.finish(clip["name"], await loop.run_in_executor(pool, _transcribe, clip["path"], clip["language"]))

    await asyncio.gather(*(hear_one(clip) for clip in clips))
    return run


def main() -> None:
    """Serve until stdin ends."""
    answers = claimed_stdout()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    processes = len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    loaded = context.Barrier(processes + 1)
    with ProcessPoolExecutor(processes, context, _load, (parser.parse_args().model, loaded)) as pool:
        for _ in range(processes):
            pool.submit(os.getpid)
        loaded.wait()
        asyncio.run(answer_requests(answers, partial(_hear, pool)))


if __name__ == "__main__":
    main()
