"""What the measures that are no contest make their numbers from: the stand-ins, and one of them for real."""

import asyncio
import json
from pathlib import Path

import pytest
import uvloop

from bench import submission, submit
from bench.context import Context
from bench.deployment import messages
from bench.load import speech_messages
from bench.stand_ins import AUDIO_SECONDS, ConstantDecoders, sleeping
from tests.services.state import Services
from v2td.config import MessageSettings
from v2td.engine import Hearing
from v2td.engine.topology import Plan, SlotPlan
from v2td.jobs import Coordinates, Job, Options, SourceRecord
from v2td.messages import Known, jobs_of


def test_every_message_is_one_that_the_daemon_takes() -> None:
    values = [*messages(3), *speech_messages(13, "http://127.0.0.1:1234")]
    for value in values:
        at = Coordinates("cluster", "topic", 0, 0, 0)
        (job,) = jobs_of(
            SourceRecord(None, value, ()), at, settings=MessageSettings(), known=Known(frozenset({"demo"}))
        )
        assert isinstance(job, Job)
        assert job.options.language == json.loads(value)["language"]
    assert len({json.loads(value)["audio_url"] for value in values}) == 13  # of the second kind, 12 and again the first


@pytest.mark.parametrize(("slots", "at_least"), [(1, 2.0), (2, 1.0)])
async def test_a_sleeping_engine_takes_its_time_in_as_many_slots_as_planned(slots: int, at_least: float) -> None:
    factor = 0.02
    plan = Plan(tuple(SlotPlan((0,), 1) for _ in range(slots)), ())
    progress: list[float] = []
    clock = asyncio.get_running_loop().time

    async def hear() -> None:
        async with ConstantDecoders().prepare(None) as speech:  # type: ignore[arg-type]  # it looks at none
            hearing = Hearing(speech.pcm, speech.windows, Options(), 5, 0.0, lambda: progress.append(clock()))
            recognition = await engine.transcribe(hearing)
        assert len(recognition.windows) == 1
        assert recognition.windows[0][1].segments

    async with sleeping(factor)(plan) as engine:
        began = clock()
        await asyncio.gather(hear(), hear())
        took = clock() - began
    assert at_least <= took / (factor * AUDIO_SECONDS) < at_least + 0.9
    assert len(progress) == 4  # each starts and ends


def test_submit_measures_what_it_says(services: Services, tmp_path: Path) -> None:
    findings = uvloop.run(submit.measure(Context(services, "quick", tmp_path, lambda _line: None)))
    assert 0 < findings.values["submit_p99_ms"] < 1000
    (table,) = findings.tables
    assert table.rows[0][0] == 4 * submit.PER_SECOND


def test_submission_measures_what_it_says(services: Services, tmp_path: Path) -> None:
    findings = uvloop.run(submission.measure(Context(services, "quick", tmp_path, lambda _line: None)))
    assert findings.values["submission_p99_ms"] > 0
    (table,) = findings.tables
    assert table.rows[0][0] == 4 * submission.PER_SECOND
