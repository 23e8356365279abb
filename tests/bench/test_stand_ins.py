"""What stands in for a room is used as the room is: a job passes through all of them."""

from __future__ import annotations

from typing import Any

import pytest

from bench.stand_ins import ConstantDecoders, ConstantDownloader, SleepingEngine, sleeping
from v2td.attempt import Hearers
from v2td.commands import Commands
from v2td.config import Settings
from v2td.engine import plan, read_machine
from v2td.jobs import Coordinates, Job, Transcript
from v2td.local import Local
from v2td.outputs import Outputs
from v2td.pipeline import Pipeline, Rooms
from v2td.progress import Journals
from v2td.providers import Providers
from v2td.replays import Replays


@pytest.mark.parametrize("engine", [SleepingEngine, sleeping(0.001)])
async def test_a_job_passes_through(engine: type[SleepingEngine]) -> None:
    settings = Settings()
    slots = plan(read_machine(), settings.engine)
    nowhere: Any = None
    journals = Journals(nowhere, "base", 0)
    stood_in: Any = engine(slots)
    local = Local(stood_in, journals, settings)
    downloader: Any = ConstantDownloader(settings.fetch, settings.s3, cache=settings.cache)  # as the daemon does
    decoders: Any = ConstantDecoders()
    job = Job(Coordinates("cluster", "topic", 0, 0, 0), "https://example.com/a.wav")
    async with Providers(settings, local) as providers:
        hearers = Hearers(downloader, decoders, local, providers, None, journals)
        outputs, replays, commands = (
            Outputs(settings.output, nowhere),
            Replays(nowhere, settings),
            Commands(nowhere, settings),
        )
        rooms = Rooms(hearers, outputs, nowhere, journals, replays, commands)
        outcome = await Pipeline(rooms, settings, 2).transcribe(job)
    assert isinstance(outcome, Transcript), outcome
    assert outcome.text
