"""The ceiling: v2td's engine fed with windows that are ready, their PCM already decoded in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from bench.contestants.program import Run, answer_requests, serve
from v2td import config
from v2td.engine import Engine, Hearing, find_model, plan_slots
from v2td.jobs import Audio, Options, Window
from v2td.speech import Decoders, Speech, decoder_count

_PRIORITY = 5


async def _hear(decoders: Decoders, engine: Engine, clips: list[dict[str, Any]]) -> Run:
    async with AsyncExitStack() as stack:
        ready: list[tuple[dict[str, Any], Speech, list[Window]]] = []
        for clip in clips:
            audio = Audio(Path(clip["path"]), 0, sha256="", temporary=False)
            speech = await stack.enter_async_context(decoders.prepare(audio))
            ready.append((clip, speech, [window async for window in speech.windows]))
        run = Run()

        async def hear_one(clip: dict[str, Any], speech: Speech, windows: list[Window]) -> None:
            recognition = await engine.transcribe(
                Hearing(
                    pcm=speech.pcm,
                    windows=_each(windows),
                    options=Options(language=clip["language"]),
                    priority=_PRIORITY,
                    began=time.monotonic(),
                    on_progress=lambda: None,
                )
            )
            parts = [segment.text.strip() for _, result in recognition.windows for segment in result.segments]
            run.finish(clip["name"], " ".join(parts))

        await asyncio.gather(*(hear_one(*each) for each in ready))
        return run


async def _each(windows: Iterable[Window]) -> AsyncIterator[Window]:
    for window in windows:
        yield window


async def _main(settings: config.Settings, answers: TextIO) -> None:
    model = find_model(settings.engine)
    layout, refit = plan_slots(settings.engine, model)
    decoders = Decoders(settings.speech, decoder_count(settings.speech, len(layout.slots)), [Path("/")])
    async with (
        decoders,
        Engine(settings.engine, settings.quality, layout, model, refit) as engine,
        asyncio.TaskGroup() as group,
    ):
        serving = group.create_task(engine.run())
        await answer_requests(answers, partial(_hear, decoders, engine))
        serving.cancel()


if __name__ == "__main__":
    serve(str(__doc__), _main)
