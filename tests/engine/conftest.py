"""A running engine with the bundled model, and recordings as windows for it."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic

import pytest
import uvloop
from faster_whisper import WhisperModel

from tests import living
from tests.engine.clips import Ask, asker, load_model
from tests.speech.sounds import Pcm, read
from v2td.bundled import Recording, recordings
from v2td.config import EngineSettings, QualitySettings
from v2td.engine import Engine, Hearing, Plan, Recognition, find_model
from v2td.engine.slot import Slot
from v2td.engine.topology import SlotPlan
from v2td.jobs import Options, Span, Window

EN, VI = (next(each for each in recordings() if each.language == language) for language in ("en", "vi"))
Hear = Callable[..., Awaitable[Recognition]]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The daemon runs on uvloop, and processes are where loops differ."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="module")
def model() -> WhisperModel:
    return load_model()


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    return asker(tmp_path_factory.mktemp("pcm"))


@asynccontextmanager
async def running_engine(slots: int = 1, **changes: object) -> AsyncIterator[Engine]:
    settings = EngineSettings.model_validate({"model": "demo", **changes})
    plan = Plan((SlotPlan((), 1),) * slots, ())
    async with Engine(settings, QualitySettings(), plan, find_model(settings)) as engine:
        serving = asyncio.create_task(engine.run())
        try:
            yield engine
        finally:
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with running_engine() as opened:
        yield opened


@pytest.fixture
def hear(tmp_path: Path) -> Hear:
    """``await hear(engine, recording, windows=1, options=…, priority=5)``: the whole recording, so many times."""
    numbers = itertools.count()

    async def heard(
        engine: Engine,
        recording: Recording | Pcm,
        *,
        windows: int = 1,
        options: Options = Options(language="en"),  # noqa: B008 (frozen)
        priority: int = 5,
        on_progress: Callable[[], None] = lambda: None,
    ) -> Recognition:
        pcm = read(recording.path) if isinstance(recording, Recording) else recording
        path = tmp_path / f"{next(numbers)}.pcm"
        pcm.tofile(path)
        everything = (Span(0, len(pcm)),)

        async def found() -> AsyncIterator[Window]:
            for index in range(windows):
                yield Window(index, everything, everything)

        return await engine.transcribe(Hearing(path, found(), options, priority, monotonic(), on_progress))

    return heard


def text_of(recognition: Recognition) -> list[str]:
    return [" ".join(segment.text.strip() for segment in result.segments) for _, result in recognition.windows]


def slots_of(engine: Engine) -> list[Slot]:
    return list(engine._slots)


def freeze(slot: Slot) -> int:
    """Stop the process, so that the window it gets certainly is under way when it is killed."""
    assert slot.child.pid is not None
    living.freeze(slot.child.pid)
    return slot.child.pid


async def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # another process makes it true, without an event
            await asyncio.sleep(0.01)
