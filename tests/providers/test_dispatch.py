"""Several providers, one recording: who is asked, who stands in, and what is left of a recording for the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.providers import given
from tests.providers.given import Scripted, Source, counted
from v2td import metrics
from v2td.config import Settings
from v2td.errors import ErrorClass, JobError, NoRoomError, ProviderFailedError, ProviderRefusedError, ServiceError
from v2td.jobs import Heard, Options
from v2td.providers import Capabilities, Decision, Facts, Needs, Provider, Providers
from v2td.providers.member import Member
from v2td.providers.windows import Rewound

FACTS = Facts(1000, None, "en", 5, "v2td-jobs")
Build = Callable[..., Providers]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    """Return what makes Providers of scripted ones, by way of an entry point."""
    given.install(tmp_path, scripted="tests.providers.given:make")
    monkeypatch.syspath_prepend(tmp_path)

    def built(*others: Scripted, local: Provider | None = None, tables: Any = (), **sections: Any) -> Providers:
        given.MADE.update({each.name: each for each in others})
        more = [*tables, *({} for _ in others)]
        plugins = [
            {"name": each.name, "entry_point": "scripted", **table} for each, table in zip(others, more, strict=False)
        ]
        routing = sections.pop("routing", {})
        providers = {"plugins": plugins, **sections}
        return Providers(Settings.model_validate({"providers": providers, "routing": routing}), local or Scripted())

    yield built
    given.MADE.clear()


def decided(providers: Providers, facts: Facts = FACTS, **insists: Any) -> Decision:
    found = providers.decide(facts, **insists)
    assert isinstance(found, Decision)
    return found


async def settled() -> None:
    """Let all tasks go as far as they come."""
    for _ in range(20):
        await asyncio.sleep(0)


def names(found: tuple[Provider, ...]) -> list[str]:
    return [each.name for each in found]


async def test_the_default_is_the_engine_alone(build: Build) -> None:
    source = Source(3)
    providers = build()
    async with providers:
        answer = await providers.transcribe(decided(providers), source.recording())
    assert (answer.provider.name, answer.tried) == ("local", ())
    assert [each.index for each in answer.heard.windows] == source.done == [0, 1, 2]
    assert source.told == [(0, "local 0"), (1, "local 1"), (2, "local 2")]


async def test_all_are_opened_and_closed(build: Build) -> None:
    one, local = Scripted("one"), Scripted()
    async with build(one, local=local):
        assert (one.open, local.open) == (True, True)
    assert (one.open, local.open) == (False, False)


async def test_what_does_not_open_or_close_is_named_without_its_words(
    build: Build, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    class Closed(Scripted):
        async def __aenter__(self) -> Self:
            raise ValueError("the key hunter2 is too short")

    class Stuck(Scripted):
        async def __aexit__(self, *_: object) -> None:
            raise ValueError("the key hunter2 is not given back")

    with pytest.raises(ServiceError, match=r"^open the provider one: ValueError at .*test_dispatch\.py") as caught:
        await build(Closed("one")).__aenter__()
    assert caught.value.__suppress_context__
    one, two = Stuck("one"), Scripted("two")
    async with build(two, one):
        assert (one.open, two.open) == (True, True)
    assert (one.open, two.open) == (True, False)
    told = caplog.text + "".join(capsys.readouterr())  # structlog may write by itself, or by logging
    assert "a provider did not close" in told
    assert "hunter2" not in told


async def test_the_next_hears_it_from_the_first_window(build: Build) -> None:
    """Nothing is freed while somebody may still have to read it."""
    failing = Scripted("one", answers=[ProviderFailedError("down")], windows=2)
    freed: list[list[int]] = []
    source = Source(3)

    class Looking(Scripted):
        async def transcribe(self, recording: Any) -> Heard:
            freed.append(list(source.done))
            return await super().transcribe(recording)

    before = counted(metrics.FALLBACKS, "one")
    providers = build(failing, local=Looking(), routing={"default": "one", "fallback": ["local"]})
    answer = await providers.transcribe(decided(providers), source.recording())
    assert freed == [[]]
    assert (answer.provider.name, answer.tried) == ("local", (("one", "down"),))
    assert [each.index for each in answer.heard.windows] == [0, 1, 2]
    assert (source.done, source.taken) == ([0, 1, 2], 3)
    assert source.told == [(0, "one 0"), (1, "one 1"), (2, "local 2")]
    assert counted(metrics.FALLBACKS, "one") == before + 1


async def test_a_provider_that_gives_up_on_a_window_does_not_end_the_recording(build: Build) -> None:
    """Its cancelled wait must not reach the decoder behind the windows."""

    class Impatient(Scripted):
        async def _transcribe(self, recording: Any) -> Heard:
            try:
                async with asyncio.timeout(0.01):
                    async for _window in recording.windows:
                        pass
            finally:
                source.gate.set()
            raise AssertionError("it was to run out of time")

    source = Source(3)
    source.gate.clear()
    providers = build(Impatient("one"), routing={"default": "one", "fallback": ["local"]})
    answer = await providers.transcribe(decided(providers), source.recording())
    assert answer.tried == (("one", "unexpected TimeoutError"),)
    assert [each.index for each in answer.heard.windows] == [0, 1, 2]


async def test_windows_that_nobody_took_are_taken_and_told(build: Build) -> None:
    """A provider may send the file as it is: the recording's totals have to be final all the same."""
    providers = build(Scripted("api", windows=0), routing={"default": "api"})
    source = Source(4)
    answer = await providers.transcribe(decided(providers), source.recording())
    assert source.taken == 4
    assert [each.index for each in answer.heard.windows] == [0, 1, 2, 3]


@pytest.mark.parametrize("fault", [JobError(ErrorClass.NOT_AUDIO, "no sound"), NoRoomError("write", "full")])
async def test_the_recordings_own_fault_is_asked_of_nobody_else(build: Build, fault: Exception) -> None:
    """Not even when the provider makes something else of it."""

    class Hiding(Scripted):
        async def transcribe(self, recording: Any) -> Heard:
            try:
                return await super().transcribe(recording)
            except Exception:  # noqa: BLE001 (as bad code does)
                raise ProviderFailedError("something went wrong") from None

    local = Scripted()
    providers = build(Hiding("one"), local=local, routing={"default": "one", "fallback": ["local"]})
    with pytest.raises(type(fault)) as caught:
        await providers.transcribe(decided(providers), Source(2, fault=fault).recording())  # type: ignore[arg-type]  # NoRoomError, too
    assert caught.value is fault
    assert local.jobs == []


async def test_other_job_errors_pass(build: Build) -> None:
    local = Scripted()
    crash = JobError(ErrorClass.INFERENCE_CRASH, "died twice")
    providers = build(Scripted("one", answers=[crash]), local=local, routing={"default": "one", "fallback": ["local"]})
    with pytest.raises(JobError, match="died twice"):
        await providers.transcribe(decided(providers), Source().recording())
    assert local.jobs == []


async def test_a_bug_and_nonsense_are_the_providers_failure(build: Build) -> None:
    class Nonsense(Scripted):
        async def _transcribe(self, recording: Any) -> Heard:
            return Heard((given.segment(float("nan")),), (), None, None, "m")

    bug = Scripted("bug", answers=[KeyError("secret")])
    providers = build(bug, Nonsense("nonsense"), routing={"default": "bug", "fallback": ["nonsense", "local"]})
    answer = await providers.transcribe(decided(providers), Source().recording())
    assert answer.provider.name == "local"
    assert [name for name, _ in answer.tried] == ["bug", "nonsense"]
    assert answer.tried[0][1] == "unexpected KeyError"
    assert "nan" in answer.tried[1][1]


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(3)], ids=["cancels", "exits"])
async def test_a_bug_that_would_end_more_than_itself_is_the_providers_failure(build: Build, error: Any) -> None:
    """A job that is cancelled by nobody would be left unfinished, and the daemon would end with its code."""
    providers = build(Scripted("bug", answers=[error]), routing={"default": "bug", "fallback": ["local"]})
    answer = await providers.transcribe(decided(providers), Source().recording())
    assert (answer.provider.name, answer.tried) == ("local", (("bug", f"unexpected {type(error).__name__}"),))


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([ProviderFailedError("a", 7), ProviderRefusedError("b")], ProviderFailedError("one: a; two: b", 7)),
        ([ProviderRefusedError("a"), ProviderFailedError("b")], ProviderFailedError("one: a; two: b")),
        ([ProviderRefusedError("a"), ProviderRefusedError("b")], ProviderRefusedError("one: a; two: b")),
        ([ProviderFailedError("a"), ProviderFailedError("b", 3)], ProviderFailedError("one: a; two: b", 3)),
    ],
)
async def test_when_all_fail(build: Build, errors: list[JobError], expected: JobError) -> None:
    one, two = (Scripted(name, answers=[error]) for name, error in zip(("one", "two"), errors, strict=True))
    providers = build(one, two, routing={"default": "one", "fallback": ["two"]})
    with pytest.raises(type(expected)) as caught:
        await providers.transcribe(decided(providers), Source().recording())
    assert caught.value.args == expected.args


async def test_weights_share_a_group_evenly_in_time(build: Build) -> None:
    members = [Scripted("a"), Scripted("b"), Scripted("c")]
    tables = [{"group": "all", "weight": weight} for weight in (5, 1, 1)]
    providers = build(*members, tables=tables, routing={"default": "all"})
    order = [(await providers.transcribe(decided(providers), Source(1).recording())).provider.name for _ in range(14)]
    assert "".join(order) == "aabacaa" * 2


async def test_who_waits_for_a_group_gets_the_first_free_place_the_urgent_first(build: Build) -> None:
    members = [Scripted("a", seconds=0.01), Scripted("b", seconds=0.01)]
    tables = [{"group": "all", "concurrency": 1}] * 2
    providers = build(*members, tables=tables, routing={"default": "all"})
    decision = decided(providers)
    order: list[int] = []

    async def one(priority: int) -> None:
        await providers.transcribe(decision, Source(1).recording(priority=priority))
        order.append(priority)

    async with asyncio.TaskGroup() as group:
        for priority in (9, 9, 8, 7, 1, 0, 4, 3):
            group.create_task(one(priority))
    assert [set(order[at : at + 2]) for at in range(0, 8, 2)] == [{9}, {0, 1}, {3, 4}, {7, 8}]
    assert [each.most for each in members] == [1, 1]
    assert [(each["in_flight"], each["waiting"]) for each in providers.status()] == [(0, 0)] * 3


async def test_members_of_a_group_stand_in_for_each_other(build: Build) -> None:
    members = [Scripted("a", answers=[ProviderFailedError("down")] * 3), Scripted("b")]
    providers = build(*members, tables=[{"group": "all", "weight": 9}, {"group": "all"}], routing={"default": "all"})
    answer = await providers.transcribe(decided(providers), Source().recording())
    assert (answer.provider.name, answer.tried) == ("b", (("a", "down"),))


async def test_nobody_is_asked_twice(build: Build) -> None:
    down = [ProviderFailedError("down")] * 9
    members = [Scripted("a", answers=down), Scripted("b", answers=down)]
    routing = {"default": "a", "fallback": ["all", "b", "local"]}
    providers = build(*members, tables=[{"group": "all"}, {"group": "all"}], routing=routing)
    answer = await providers.transcribe(decided(providers), Source().recording())
    assert (answer.provider.name, answer.tried) == ("local", (("a", "down"), ("b", "down")))
    assert [len(each.jobs) for each in members] == [1, 1]


async def test_what_a_provider_says_is_bounded(build: Build) -> None:
    providers = build(Scripted("one", answers=[ProviderFailedError("x" * 10_000)]), routing={"default": "one"})
    with pytest.raises(ProviderFailedError) as caught:
        await providers.transcribe(decided(providers), Source().recording())
    assert len(caught.value.reason) < 1000


@pytest.mark.parametrize(
    ("health", "told"),
    [
        (None, None),
        ("no model", "no model"),
        (ValueError("secret"), "it cannot say whether it is well: ValueError"),
        (TimeoutError(), "it did not say within 10 s whether it is well"),
    ],
)
async def test_health_is_what_it_says_or_cannot_say(health: str | Exception | None, told: str | None) -> None:
    class Asked(Scripted):
        async def health(self) -> str | None:
            if isinstance(health, Exception):
                raise health
            return health

    member = Member(Asked("asked"), Settings())
    await member.look()
    assert member.trouble == told


@pytest.mark.parametrize(
    ("capabilities", "options", "reason"),
    [
        (Capabilities(), Options(task="translate"), "it does not translate"),
        (Capabilities(languages=frozenset({"en"})), Options(language="vi"), "it does not know the language vi"),
        (Capabilities(), Options(channels="split"), "it does not tell channels apart"),
        (Capabilities(), Options(word_timestamps=True), "it has no word_timestamps"),
        (Capabilities(), Options(multilingual=True), "it has no multilingual"),
    ],
)
async def test_who_cannot_do_it_is_passed_over(
    build: Build, capabilities: Capabilities, options: Options, reason: str
) -> None:
    one = Scripted("one", capabilities=capabilities)
    providers = build(one, routing={"default": "one", "fallback": ["local"]})
    answer = await providers.transcribe(decided(providers), Source().recording(options))
    assert (answer.provider.name, answer.tried) == ("local", (("one", reason),))
    assert one.jobs == []
    assert names(providers.possible(decided(providers), options)) == ["local"]
    alone = build(one, routing={"default": "one"})
    with pytest.raises(ProviderRefusedError, match=f"one: {reason}"):
        await alone.transcribe(decided(alone), Source().recording(options))


async def test_hints_are_no_needs(build: Build) -> None:
    one = Scripted("one", capabilities=Capabilities(languages=frozenset({"en"})))
    providers = build(one, routing={"default": "one", "fallback": ["local"]})
    options = Options(prompt="a", hotwords="b", beam_size=3, condition_on_previous_text=True, languages=("en", "vi"))
    assert (await providers.transcribe(decided(providers), Source().recording(options))).provider is one


async def test_a_detected_language_counts_as_a_given_one(build: Build) -> None:
    one = Scripted("one", capabilities=Capabilities(languages=frozenset({"en"})))
    providers = build(one, routing={"default": "one", "fallback": ["local"]})
    decision = decided(providers, Facts(1000, None, "vi", 5, "t"))
    assert (await providers.transcribe(decision, Source().recording())).provider.name == "local"


BREAKER = {"breaker_jobs": 2, "breaker_ratio": 0.5, "breaker_pause_seconds": 600}


async def test_who_fails_often_is_left_alone(build: Build) -> None:
    failing = Scripted("one", answers=[ProviderFailedError("down")] * 2)
    providers = build(failing, routing={"default": "one", "fallback": ["local"]}, **BREAKER)
    decision = decided(providers)
    before = counted(metrics.FALLBACKS, "one")
    answers = [await providers.transcribe(decision, Source().recording()) for _ in range(5)]
    assert {each.provider.name for each in answers} == {"local"}
    assert [dict(each.tried)["one"].partition(",")[0] for each in answers] == ["down"] * 2 + ["it is left alone"] * 3
    assert counted(metrics.FALLBACKS, "one") == before + 5
    assert len(failing.jobs) == 2
    assert counted(metrics.PROVIDER_OPEN, "one") == 1
    said = {each["name"]: each["open_seconds"] for each in providers.status()}
    assert said["local"] is None
    assert 500 < said["one"] <= 600


async def test_when_all_are_left_alone_the_job_waits(build: Build) -> None:
    failing = Scripted("one", answers=[ProviderFailedError("down")] * 2)
    providers = build(failing, routing={"default": "one"}, **BREAKER)
    decision = decided(providers)
    for _ in range(2):
        with pytest.raises(ProviderFailedError, match="down"):
            await providers.transcribe(decision, Source().recording())
    with pytest.raises(ProviderFailedError, match="one: it is left alone, since too many of its jobs failed") as caught:
        await providers.transcribe(decision, Source().recording())
    assert caught.value.retry_after is not None
    assert 500 < caught.value.retry_after <= 600


async def test_after_the_pause_it_is_tried_again(build: Build) -> None:
    failing = Scripted("one", answers=[ProviderFailedError("down")] * 2)
    settings = {**BREAKER, "breaker_pause_seconds": 0.05}
    providers = build(failing, routing={"default": "one", "fallback": ["local"]}, **settings)
    decision = decided(providers)
    for _ in range(3):
        await providers.transcribe(decision, Source().recording())
    assert len(failing.jobs) == 2
    await asyncio.sleep(0.06)
    assert (await providers.transcribe(decision, Source().recording())).provider is failing


async def test_when_it_does_its_work_again_no_job_that_waits_for_it_is_turned_away(build: Build) -> None:
    """Of an API that takes five at once: those that get a place before most are judged are all let in."""

    class Uneven(Scripted):
        async def _transcribe(self, recording: Any) -> Heard:
            for _ in range(20 * len(self.jobs)):
                await asyncio.sleep(0)
            return await super()._transcribe(recording)

    api = Uneven("api", answers=[ProviderFailedError("down")] * 2, concurrency=5)
    providers = build(api, routing={"default": "api"}, **{**BREAKER, "breaker_pause_seconds": 0.05})
    decision = decided(providers)
    for _ in range(2):
        with pytest.raises(ProviderFailedError, match="down"):
            await providers.transcribe(decision, Source().recording())
    await asyncio.sleep(0.06)
    answers = await asyncio.gather(*(providers.transcribe(decision, Source().recording()) for _ in range(40)))
    assert {each.provider for each in answers} == {api}


async def test_slow_counts_as_failed_but_not_of_one_with_a_queue_of_its_own(build: Build) -> None:
    settings = {**BREAKER, "slow_seconds": 0.01, "slow_factor": 0.001}
    slow, queue = Scripted("slow", seconds=0.05, concurrency=1), Scripted("queue", seconds=0.05, concurrency=0)
    providers = build(slow, queue, **settings)
    for name in ("slow", "slow", "queue", "queue"):
        decision = decided(providers, provider=name)
        await providers.transcribe(decision, Source(1, seconds=1).recording())
    said = {each["name"]: each["open_seconds"] is not None for each in providers.status()}
    assert said == {"local": False, "slow": True, "queue": False}


async def test_so_does_a_job_that_was_given_up(build: Build) -> None:
    providers = build(Scripted("slow", seconds=60, concurrency=1), **BREAKER, slow_seconds=0.01, slow_factor=0.001)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await providers.transcribe(decided(providers, provider="slow"), Source(1, seconds=1).recording())
    assert providers.status()[1]["open_seconds"] is not None
    assert providers.status()[1]["in_flight"] == 0


async def test_and_one_whose_attempt_is_over() -> None:
    """That comes long before a long recording is slow."""
    settings = Settings.model_validate({"providers": BREAKER})
    short = settings.pipeline.model_copy(update={"attempt_seconds": 0.05})  # which no configuration may have
    member = Member(Scripted("hangs", seconds=60, concurrency=1), settings.model_copy(update={"pipeline": short}))
    for _ in range(2):
        async with Rewound(Source(1, seconds=0.01).recording()) as rewound:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await member.transcribe(rewound, last=True)
    assert member.open_seconds is not None
    patient = Member(Scripted("hangs", seconds=60, concurrency=1), settings)
    async with Rewound(Source(1).recording()) as rewound:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await patient.transcribe(rewound, last=True)
    assert patient.open_seconds is None


async def test_who_is_not_well_is_asked_last(build: Build) -> None:
    sick = Scripted("sick")
    sick.trouble = "no model"
    local = Scripted()
    providers = build(sick, local=local, routing={"default": "sick", "fallback": ["local"]})
    decision = decided(providers)
    watching = asyncio.create_task(providers.run())
    while providers.status()[1]["trouble"] is None:
        await asyncio.sleep(0)
    assert counted(metrics.PROVIDER_HEALTHY, "sick") == 0
    answer = await providers.transcribe(decision, Source().recording())
    assert (answer.provider.name, answer.tried) == ("local", (("sick", "it is not well: no model"),))
    alone = decided(providers, provider="sick")  # better than not to try at all
    assert (await providers.transcribe(alone, Source().recording())).provider is sick
    local._answers = iter([ProviderFailedError("down")])
    answer = await providers.transcribe(decision, Source().recording())
    assert (answer.provider, answer.tried) == (sick, (("local", "down"),))
    watching.cancel()
    await asyncio.wait({watching})


@pytest.mark.parametrize(("waiting", "at_once"), [(0, 5), (94, 5), (106, 10), (990, 10), (1030, 20)])
async def test_an_api_takes_more_the_more_wait(build: Build, waiting: int, at_once: int) -> None:
    """5, 10 or 20 by queue depth, as the second seed has it."""
    api = Scripted("api", concurrency=None, seconds=60)
    providers = build(api, routing={"default": "api"})
    decision = decided(providers)
    jobs = [
        asyncio.create_task(providers.transcribe(decision, Source(1).recording())) for _ in range(waiting + at_once)
    ]
    await settled()
    assert (api.now, providers.status()[1]["waiting"]) == (at_once, waiting)
    for each in jobs:
        each.cancel()
    await asyncio.wait(jobs)
    assert (api.now, providers.status()[1]["waiting"], providers.status()[1]["in_flight"]) == (0, 0, 0)


async def test_a_message_may_insist_on_a_provider(build: Build) -> None:
    providers = build(Scripted("one"), routing={"fallback": ["one"]})
    decision = decided(providers, provider="one")
    assert decision == Decision(None, "one", ("one",), ("the message names it",), language="en")
    with pytest.raises(JobError, match=r"bad_field: provider: 'two' is none of local, one"):
        providers.decide(FACTS, provider="two")


async def test_a_message_may_insist_on_a_model(build: Build) -> None:
    one, two, three = Scripted("one", model="big"), Scripted("two", model="big"), Scripted("three", model="small")
    tables = [{"group": "all"}, {}, {"group": "all"}]
    routing = {"default": "all", "fallback": ["local", "two"]}
    providers = build(one, two, three, local=Scripted(model="base"), tables=tables, routing=routing)
    assert providers.models == ("base", "big", "small")
    big = decided(providers, model="big")
    assert (big.chain, big.model) == (("all", "two"), "big")
    assert (await providers.transcribe(big, Source().recording())).provider is one
    assert decided(providers, model="base").chain == ("local",)
    assert decided(providers, provider="all", model="small").chain == ("all",)
    assert names(providers.possible(big, Options())) == ["one"]
    with pytest.raises(JobError, match=r"bad_field: model: no provider has the model 'huge'; there are base \(local\)"):
        providers.decide(FACTS, model="huge")
    with pytest.raises(JobError, match="bad_field: model: local has no model 'big'"):
        providers.decide(FACTS, provider="local", model="big")
    widened = build(one, two, local=Scripted(model="base"))
    assert decided(widened, model="big").chain == ("one", "two")


async def test_whose_results_will_do(build: Build) -> None:
    members = [Scripted("a"), Scripted("b"), Scripted("zh", capabilities=Capabilities(languages=frozenset({"zh"})))]
    rules = [{"name": "zh", "provider": "zh", "language": "zh", "priority": 1}]
    routing = {"rules": rules, "default": "all", "fallback": ["local"]}
    providers = build(*members, tables=[{"group": "all"}, {"group": "all"}, {}], routing=routing)
    assert names(providers.possible(decided(providers), Options())) == ["a", "b"]
    unknown = providers.decide(Facts(1000, None, None, 5, "t"))
    assert isinstance(unknown, Needs)
    assert names(providers.possible(unknown, Options())) == ["zh", "a", "b"]
    assert names(providers.possible(unknown, Options(language="vi"))) == ["a", "b"]


async def test_jobs_that_wait_elsewhere_count_for_an_api(build: Build) -> None:
    """In the daemon most of them wait to be decoded, and come to its queue only then."""
    api = Scripted("api", concurrency=None, seconds=60)
    providers = build(api, routing={"default": "api"})
    decision = decided(providers)
    doors = asyncio.Semaphore(30)

    async def job() -> None:
        async with providers.expecting(decision), doors:
            await providers.transcribe(decision, Source(1).recording())

    jobs = [asyncio.create_task(job()) for _ in range(105)]
    await settled()
    assert api.now == 5  # 100 wait
    jobs += [asyncio.create_task(job()) for _ in range(20)]
    await settled()
    assert api.now == 10
    for each in jobs:
        each.cancel()
    await asyncio.wait(jobs)
    assert providers.status()[1]["concurrency"] == 5


@pytest.mark.parametrize(("concurrency", "expected"), [(1, [0, 1, 2]), (None, [0, 1, 2]), (0, [0, 1, 2])])
async def test_deadlines_count_though_a_provider_tells_of_no_progress(
    build: Build, concurrency: int | None, expected: list[int]
) -> None:
    """Else one that hangs would keep its job for ever. The engine alone tells, when a window leaves its queue."""
    routing = {"default": "one", "fallback": ["local"]}
    providers = build(Scripted("one", concurrency=concurrency, answers=[ProviderFailedError("down")]), routing=routing)
    calls: list[int] = []
    source = Source(2)
    recording = source.recording(on_progress=lambda: calls.append(source.taken))
    await providers.transcribe(decided(providers), recording)
    assert calls == expected


async def test_one_that_hears_one_at_a_time_is_left_alone_though_its_failures_take_long() -> None:
    settings = Settings.model_validate({"providers": {**BREAKER, "breaker_jobs": 3, "breaker_seconds": 0.001}})
    member = Member(Scripted("hangs", seconds=0.1, concurrency=1, answers=[ProviderFailedError("late")] * 3), settings)
    for _ in range(3):
        assert member.open_seconds is None
        async with Rewound(Source(1).recording()) as rewound:
            with pytest.raises(ProviderFailedError):
                await member.transcribe(rewound, last=True)
    assert member.open_seconds is not None
