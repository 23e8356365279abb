"""What the daemon is measured against: its decoders, VAD, scheduler and engine, from files, and nothing else."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from bench.contestants.program import Run, answer_requests, serve
from v2td import config
from v2td.jobs import Options
from v2td.ops.transcribe import Transcriber


async def _hear(transcriber: Transcriber, clips: list[dict[str, Any]]) -> Run:
    run = Run()

    async def hear_one(clip: dict[str, Any]) -> None:
        document = await transcriber.transcribe(Path(clip["path"]), Options(language=clip["language"]))
        run.finish(clip["name"], " ".join(segment.text.strip() for segment in document.segments))

    await asyncio.gather(*(hear_one(clip) for clip in clips))
    return run


async def _main(settings: config.Settings, answers: TextIO) -> None:
    async with Transcriber(settings, [Path("/")]) as transcriber:
        await answer_requests(answers, partial(_hear, transcriber))


if __name__ == "__main__":
    serve(str(__doc__), _main)
