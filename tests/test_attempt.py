"""One attempt, where the rules hinge on what is found out on the way; decoders and engine are real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self, cast

import pytest

from tests.store.conftest import schema, settings, store
from v2td import bundled, metrics
from v2td.attempt import Attempts, Hearers, Journey
from v2td.bundled.recordings import AUDIO
from v2td.config import (
    CacheSettings,
    EngineSettings,
    FetchSettings,
    PluginSettings,
    RoutingSettings,
    RuleSettings,
    Settings,
)
from v2td.config.providers import ProvidersSettings
from v2td.engine import Engine, find_model, plan, read_machine
from v2td.errors import ProviderFailedError
from v2td.fetch import Downloader
from v2td.jobs import Coordinates, Heard, Job, Options, Segment, Transcript, Window
from v2td.limit import Deadlines
from v2td.local import Local
from v2td.progress import Journals
from v2td.providers import EVERYTHING, Capabilities, Providers, Recording, registry
from v2td.results import ResultCache
from v2td.speech import Decoders
from v2td.stages import Trail
from v2td.store import Database

__all__ = ["schema", "settings", "store"]

pytestmark = pytest.mark.slow


def recording(language: str, *, long: bool) -> bundled.Recording:
    return next(each for each in bundled.recordings() if each.language == language and (each.seconds > 60) is long)


class Elsewhere:
    """Another provider: says how long the recording is, and keeps what it was given."""

    name = "elsewhere"
    model = "another"
    fingerprint = "elsewhere"
    concurrency = 1
    capabilities = Capabilities(options=EVERYTHING)

    def __init__(self) -> None:
        self.given: list[tuple[str | None, tuple[Window, ...]]] = []
        self.broken = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def transcribe(self, recording: Recording) -> Heard:
        windows = tuple([window async for window in recording.windows])
        self.given.append((recording.options.language, windows))
        if self.broken:
            raise ProviderFailedError("broken")
        segments = (Segment(0.0, 1.0, f"{len(windows)} windows", -0.1, 0.0, 1.0, 0.0),)
        return Heard(segments, windows, recording.options.language or "en", None, self.model, cost=0.5)

    async def health(self) -> str | None:
        return None


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    provider = Elsewhere()
    table = PluginSettings(name="elsewhere", entry_point="elsewhere")
    monkeypatch.setattr(registry, "make", lambda _settings: iter([(table, provider)]))
    return provider


class Bench:
    """Makes attempts under rules."""

    def __init__(self, stack: AsyncExitStack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder
        self.offset = 0

    async def open(self, *rules: RuleSettings, results: ResultCache | None = None, **routing: Any) -> None:
        plugins = (PluginSettings(name="elsewhere", entry_point="elsewhere"),)
        settings = Settings(
            engine=EngineSettings(model="demo", slots=1),
            fetch=FetchSettings(file_roots=(AUDIO,), spool_dir=self.folder),
            routing=RoutingSettings(rules=rules, **routing),
            providers=ProvidersSettings(plugins=plugins),
        )
        enter = self.stack.enter_async_context
        downloader = await enter(Downloader(settings.fetch, settings.s3))
        decoders = await enter(Decoders(settings.speech, 1, downloader.folders))
        layout = plan(read_machine(), settings.engine)
        engine = await enter(Engine(settings.engine, settings.quality, layout, find_model(settings.engine)))
        running = asyncio.create_task(engine.run())
        self.stack.callback(running.cancel)
        self.settings = settings
        self.journals = Journals(cast("Database", None), settings.engine.model, 0)
        local = Local(engine, self.journals, settings)
        providers = await enter(Providers(settings, local))
        self.attempts = Attempts(Hearers(downloader, decoders, local, providers, results, self.journals), settings, 4)

    async def make(self, source: bundled.Recording, to: str | None = None, **options: Any) -> Transcript:
        self.offset += 1
        at = Coordinates("cluster", "topic", 0, self.offset, 1_700_000_000_000)
        job = Job(at, source.path.as_uri(), options=Options(**options), provider=to)
        async with self.journals.journal(job) as journal:
            deadlines = Deadlines(self.settings.pipeline, None)
            return await self.attempts.make(Journey(job, Trail(job), deadlines, journal))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(stack, tmp_path)


def resumed() -> float:
    return float(metrics.WINDOWS_RESUMED._value.get())


async def test_the_duration_decides(bench: Bench, elsewhere: Elsewhere) -> None:
    await bench.open(RuleSettings(name="long", provider="elsewhere", duration_seconds=(60,)))
    short, long = recording("en", long=False), recording("en", long=True)
    near = await bench.make(short, language="en")
    assert (near.provider, near.text) == ("local", short.text)
    assert near.route is not None
    assert near.route["rule"] is None
    far = await bench.make(long, language="en")
    (_, windows) = elsewhere.given[0]
    assert (far.provider, far.model, far.cost) == ("elsewhere", "another", 0.5)
    assert [window.index for window in windows] == list(range(len(windows)))
    assert far.text == f"{len(windows)} windows"
    assert far.audio_seconds == pytest.approx(long.seconds, abs=0.5)
    assert far.route is not None
    assert far.route["rule"] == "long"


async def test_the_language_that_is_heard_decides(bench: Bench, elsewhere: Elsewhere) -> None:
    await bench.open(RuleSettings(name="vietnamese", provider="elsewhere", language="vi"))
    english, vietnamese = recording("en", long=False), recording("vi", long=False)
    before = resumed()
    near = await bench.make(english)
    assert (near.provider, near.text, near.language) == ("local", english.text, "en")
    assert resumed() == before + 1, "what told the language was heard a second time"
    far = await bench.make(vietnamese)
    assert far.provider == "elsewhere"
    assert elsewhere.given == [("vi", elsewhere.given[0][1])]
    assert [window.index for window in elsewhere.given[0][1]] == [0]
    said = await bench.make(vietnamese, language="en")  # what the message says beats what is heard
    assert said.provider == "local"


async def test_another_hears_all_of_it_when_one_fails(bench: Bench, elsewhere: Elsewhere) -> None:
    await bench.open(default="elsewhere", fallback=("local",))
    elsewhere.broken = True
    long = recording("vi", long=True)
    made = await bench.make(long, language="vi")
    assert made.provider == "local"
    assert made.speech_coverage_ratio is not None
    assert made.speech_coverage_ratio > 0.9
    assert len(made.text) > 0.9 * len(long.text)
    assert made.route is not None
    ((name, reason),) = made.route["tried"]
    assert (name, "broken" in reason) == ("elsewhere", True)


@pytest.mark.services
async def test_a_text_that_the_rules_would_not_choose_is_not_taken(
    bench: Bench, elsewhere: Elsewhere, store: Database
) -> None:
    """Though they hinge on what is not known yet: whose text it is tells no less than whether there is one."""
    long, short, vietnamese = recording("en", long=True), recording("en", long=False), recording("vi", long=False)
    rules = (
        RuleSettings(name="long", provider="elsewhere", duration_seconds=(60,), priority=1),
        RuleSettings(name="vietnamese", provider="elsewhere", language="vi"),
    )
    async with ResultCache(store, CacheSettings(results=True)) as results:
        await bench.open(*rules, results=results)
        for each in (long, short, vietnamese):
            await bench.make(each, to="local")
        await bench.make(short, to="elsewhere")
        made = {each: await bench.make(each) for each in (long, short, vietnamese)}
        assert {each: made[each].provider for each in made} == {
            long: "elsewhere",
            short: "local",
            vietnamese: "elsewhere",
        }
        assert [made[each].timings.get("cached") for each in made] == [None, "in_flight", None]
        again = [await bench.make(each) for each in (long, short, vietnamese)]
        assert [each.timings.get("cached") for each in again] == ["in_flight"] * 3
        assert [each.text for each in again] == [each.text for each in made.values()]
