"""Has recordings transcribed by whom the rules decide for, and by the next one when that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Self

from v2td import metrics
from v2td.config import LOCAL, Settings
from v2td.errors import ErrorClass, JobError, ProviderFailedError, ProviderRefusedError
from v2td.jobs import MAX_REASON, Heard, Options
from v2td.logs import get_logger
from v2td.providers import registry, router
from v2td.providers.member import Member, next_of, opened
from v2td.providers.needs import lacks
from v2td.providers.places import Places, place
from v2td.providers.protocol import Provider, Recording
from v2td.providers.router import Decision, Facts, Needs
from v2td.providers.windows import Rewound

log = get_logger(__name__)

LEFT_ALONE = "it is left alone, since too many of its jobs failed"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was heard, and by whom; `tried` are those before: (name, why not)."""

    heard: Heard
    provider: Provider
    tried: tuple[tuple[str, str], ...] = ()


class Providers:
    """All providers. Opens and closes them; `local`, the engine, is one of them.

    Raises ConfigError when one cannot be made; entering raises ServiceError when one does not open.
    """

    def __init__(self, settings: Settings, local: Provider) -> None:
        self._routing = settings.routing
        self._settings = settings.providers
        self._members = [Member(local, settings)]
        for table, provider in registry.make(settings.providers):
            concurrency = table.concurrency
            member = Member(provider, settings, group=table.group, weight=table.weight, concurrency=concurrency)
            self._members.append(member)
        self._targets: dict[str, list[Member]] = {}
        for each in self._members:
            self._targets[each.name] = [each]
        for each in self._members:
            if each.group is not None:
                self._targets.setdefault(each.group, []).append(each)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for each in self._members:
                await stack.enter_async_context(opened(each.provider))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *details: object) -> None:
        await self._stack.aclose()

    @property
    def models(self) -> tuple[str, ...]:
        """The models that there are, as far as that is known; the engine's first."""
        return tuple(dict.fromkeys(model for each in self._members if (model := each.provider.model) is not None))

    def decide(self, facts: Facts, provider: str | None = None, model: str | None = None) -> Decision | Needs:
        """Return who transcribes such a job, or what has to be known first.

        `provider` and `model` are what its message insists on: then no rule and no fallback counts, and a model that
        those whom the rules allow have not is asked of all that have it. Raises JobError bad_field when nobody has it.
        """
        if provider is None:
            found = router.decide(self._routing, facts)
        elif provider in self._targets:
            found = Decision(None, provider, (provider,), ("the message names it",), language=facts.language or None)
        else:
            reason = f"provider: {provider!r} is none of {', '.join(sorted(self._targets))}"
            raise JobError(ErrorClass.BAD_FIELD, reason)
        if model is None:
            return found
        if isinstance(found, Needs):
            return replace(found, model=model)
        return self._with_model(found, model, widen=provider is None)

    def possible(self, route: Decision | Needs, options: Options) -> tuple[Provider, ...]:
        """Return all that may be the first to transcribe such a job, no fallbacks: a result of any of them will do."""
        if isinstance(route, Decision):
            every = (self._capable(name, route.model, options, route.language) for name in route.chain)
            found = next((each for each in every if each), [])
        else:
            found = [
                each for name in route.targets for each in self._capable(name, route.model, options, language=None)
            ]
            if not found and route.model is not None:
                found = [each for each in self._members if each.provider.model == route.model]
        return tuple(dict.fromkeys(each.provider for each in found))

    async def transcribe(self, decision: Decision, recording: Recording) -> Answer:
        """Return what the first in the decision's chain heard that is able and does not fail.

        Raises ProviderFailedError when all fail and another attempt may help, ProviderRefusedError when none takes it,
        and what the recording's windows raise.
        """
        if decision.chain == (LOCAL,):  # as nearly always, and it takes anything: no detour for those
            engine = self._members[0]
            return Answer(await engine.hear(recording), engine.provider)
        tries = _Tries(self._chain(decision), recording.options, decision.language)
        async with Rewound(recording) as rewound:
            while ready := tries.ready():
                by_places = {each.places: each for each in ready}

                def choose(free: Sequence[Places], members: dict[Places, Member] = by_places) -> Places:
                    return next_of([members[each] for each in free]).places

                async with place(tuple(by_places), recording.priority, choose) as taken:
                    member = by_places[taken]
                    heard = await tries.ask(member, rewound)
                if heard is not None:
                    await rewound.drain()
                    metrics.PROVIDER_AUDIO_SECONDS.labels(member.name).inc(rewound.seconds)
                    if not heard.windows:
                        heard = replace(heard, windows=rewound.windows)
                    return Answer(heard, member.provider, tries.tried)
        raise tries.failure()

    @asynccontextmanager
    async def expecting(self, route: Decision | Needs) -> AsyncIterator[None]:
        """Count a job, wherever it waits, among those that wait for its provider; until it is done."""
        members: list[Member] = []
        if isinstance(route, Decision) and route.target != LOCAL:  # which takes any number
            members = self._having(route.target, route.model)
        for each in members:
            each.places.expect(1)
        try:
            yield
        finally:
            for each in members:
                each.places.expect(-1)

    async def run(self) -> None:
        """Ask all providers whether they are well, for ever."""
        while True:
            async with asyncio.TaskGroup() as group:
                for each in self._members:
                    group.create_task(each.look())
            await asyncio.sleep(self._settings.health_seconds)

    def status(self) -> list[dict[str, Any]]:
        """Return how each of them is, for GET /status."""
        return [
            {
                "name": each.name,
                "model": each.provider.model,
                "group": each.group,
                "weight": each.weight,
                "concurrency": each.places.size,
                "in_flight": each.places.taken,
                "waiting": each.places.waiting,
                "trouble": each.trouble,
                "open_seconds": None if (seconds := each.open_seconds) is None else round(seconds, 1),
            }
            for each in self._members
        ]

    def _with_model(self, decision: Decision, model: str, *, widen: bool) -> Decision:
        chain = tuple(name for name in decision.chain if self._having(name, model))
        if chain == decision.chain:
            return replace(decision, model=model)
        if chain:
            return router.narrowed(decision, chain, model, f"of these only with the model {model}")
        chain = tuple(each.name for each in self._members if each.provider.model == model) if widen else ()
        if not chain:
            where = "no provider has the" if widen else f"{decision.target} has no"
            raise JobError(ErrorClass.BAD_FIELD, f"model: {where} model {model!r}; there are {self._known()}")
        return router.narrowed(decision, chain, model, f"none of these has the model {model}, which the message names")

    def _known(self) -> str:
        return ", ".join(f"{each.provider.model} ({each.name})" for each in self._members if each.provider.model)

    def _having(self, target: str, model: str | None) -> list[Member]:
        return [each for each in self._targets[target] if model is None or each.provider.model == model]

    def _capable(self, target: str, model: str | None, options: Options, language: str | None) -> list[Member]:
        members = self._having(target, model)
        return [each for each in members if lacks(each.provider.capabilities, options, language) is None]

    def _chain(self, decision: Decision) -> Iterator[list[Member]]:
        """Yield for each of the chain those that may be asked, nobody twice."""
        seen: set[str] = set()
        for name in decision.chain:
            members = [each for each in self._having(name, decision.model) if each.name not in seen]
            seen.update(each.name for each in members)
            yield members


class _Tries:
    """One job on its way through a chain: who is left, and what was said by those who were asked."""

    def __init__(self, chain: Iterable[list[Member]], options: Options, language: str | None) -> None:
        self._said: dict[str, str] = {}  # by name: why not
        self._left: list[list[Member]] = []
        self._passed: list[Member] = []  # left alone, so that another attempt may find them willing
        self._failed: ProviderFailedError | None = None
        self._gave_up: str | None = None  # whom the next one stands in for
        for members in chain:
            problems = {each.name: lacks(each.provider.capabilities, options, language) for each in members}
            self._left.append([each for each in members if problems[each.name] is None])
            self._said |= {name: problem for name, problem in problems.items() if problem is not None}

    @property
    def tried(self) -> tuple[tuple[str, str], ...]:
        """Who did not do it, and why."""
        return tuple(self._said.items())

    def ready(self) -> list[Member]:
        """Return whom to ask next, the first that comes to it: well if possible, and never one that is left alone."""
        willing = [[each for each in members if each.open_seconds is None] for members in self._left]
        well = ([each for each in members if each.trouble is None] for members in willing)
        return next(filter(None, well), None) or next(filter(None, willing), [])

    async def ask(self, member: Member, rewound: Rewound) -> Heard | None:
        """Return what it heard; None, with the reason noted, when the next is to be asked."""
        for members in takewhile(lambda members: member not in members, self._left):
            for each in members:  # who would have come before
                self._gave_up = self._gave_up or each.name
                self._said[each.name] = LEFT_ALONE if each.trouble is None else f"it is not well: {each.trouble}"
        self._left = [[each for each in members if each is not member] for members in self._left]
        self._said.pop(member.name, None)  # it may be asked though it is not well
        if not member.admit():
            self._passed.append(member)
            self._said[member.name] = LEFT_ALONE
            self._gave_up = member.name
            return None
        if self._gave_up is not None:
            metrics.FALLBACKS.labels(self._gave_up).inc()
        try:
            return await member.transcribe(rewound, last=not any(self._left))
        except ProviderFailedError as error:
            self._failed, reason = error, error.reason
        except ProviderRefusedError as error:
            reason = error.reason
        log.info("a provider did not do it", provider=member.name, reason=reason, others=any(self._left))
        self._said[member.name] = reason[:MAX_REASON]
        self._gave_up = member.name
        return None

    def failure(self) -> JobError:
        """Return what the job fails with, or waits for, when nobody is left to ask."""
        if self._failed is not None:
            return ProviderFailedError(self._reasons, self._failed.retry_after)
        if waits := [*self._passed, *(each for members in self._left for each in members)]:
            self._said |= {each.name: LEFT_ALONE for each in waits}
            return ProviderFailedError(self._reasons, min(each.retry_after for each in waits))
        return ProviderRefusedError(self._reasons)

    @property
    def _reasons(self) -> str:
        return "; ".join(f"{name}: {reason}" for name, reason in self.tried)
