"""whisper.cpp in a naive loop over pywhispercpp: a process for each core, one recording after the other.

Processes of one thread, as for `batched`. The weights are the others', in float16, which is how whisper.cpp keeps them
unless it is told to quantize; CTranslate2 has them in int8.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from typing import Any

from faster_whisper.audio import decode_audio

from bench.contestants.program import Run, answer_requests, claimed_stdout

BEAM_SIZE = 5

_model: Any = None


def _load(model: str, loaded: threading.Barrier) -> None:
    global _model  # noqa: PLW0603 (a process of a pool keeps what its initializer made in a global)
    library = import_module("pywhispercpp.model")
    # Not 0: beams.
    _model = library.Model(model, params_sampling_strategy=1, redirect_whispercpp_logs_to=None, n_threads=1)
    loaded.wait()


def _transcribe(path: str, language: str) -> str:
    segments = _model.transcribe(
        decode_audio(path),
        language=language,
        beam_search={"beam_size": BEAM_SIZE, "patience": -1.0},
        suppress_nst=True,  # as in faster-whisper
        print_progress=False,
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
