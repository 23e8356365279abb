"""Crowds of jobs over random providers that fail, refuse, break, hang and are left alone: what holds all the same."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.providers.given import Scripted, Source
from v2td.config import Settings
from v2td.errors import ErrorClass, JobError, ProviderFailedError, ProviderRefusedError
from v2td.jobs import Heard
from v2td.providers import Decision, Providers, Recording, dispatch
from v2td.providers.member import Member

WINDOWS = 3
BROKEN = JobError(ErrorClass.TRUNCATED, "the end is missing")
BEHAVIOURS = ("hears", "hears", "hears", "fails", "refuses", "breaks", "nonsense")


class Unreliable(Scripted):
    """Does the next of its script with each job, round and round, after it has read some windows."""

    def __init__(self, name: str, script: list[tuple[str, int, int]], **more: Any) -> None:
        super().__init__(name, **more)
        self._script = script
        self._asked = 0

    async def _transcribe(self, recording: Recording) -> Heard:
        behaviour, reads, turns = self._script[self._asked % len(self._script)]
        self._asked += 1
        read = []
        async for window in recording.windows:
            read.append(window)
            recording.on_text(window, self.name)
            recording.on_done(window)
            if len(read) > reads and behaviour != "hears":
                break
        for _ in range(turns):
            await asyncio.sleep(0)
        match behaviour:
            case "fails":
                raise ProviderFailedError("down")
            case "refuses":
                raise ProviderRefusedError("too large")
            case "breaks":
                raise ExceptionGroup("several", [KeyError("a bug")])
            case "nonsense":
                return "nothing"  # type: ignore[return-value]  # as careless code does
        return Heard((), tuple(read), None, None, self.name)


scripts = st.lists(
    st.tuples(st.sampled_from(BEHAVIOURS), st.integers(0, WINDOWS), st.integers(0, 5)), min_size=1, max_size=5
)
providers = st.lists(
    st.tuples(scripts, st.sampled_from([None, 0, 1, 2]), st.sampled_from([None, "g"]), st.integers(1, 3)),
    min_size=1,
    max_size=4,
)
jobs = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["p0", "p1", "p2", "p3", "g"]), min_size=1, max_size=3, unique=True),
        st.integers(0, 9),  # priority
        st.booleans(),  # its recording is broken
        st.one_of(st.none(), st.integers(0, 20)),  # turns after which it is cancelled
    ),
    min_size=1,
    max_size=25,
)


@settings(deadline=None)
@given(made=providers, wanted=jobs, unwell=st.sets(st.integers(0, 3)))
def test_whatever_they_do(
    made: list[tuple[Any, int | None, str | None, int]],
    wanted: list[tuple[list[str], int, bool, int | None]],
    *,
    unwell: set[int],
) -> None:
    configured = Settings.model_validate({"providers": {"breaker_jobs": 3, "breaker_pause_seconds": 100}})
    members = [
        Member(Unreliable(f"p{at}", script, concurrency=concurrency), configured, group=group, weight=weight)
        for at, (script, concurrency, group, weight) in enumerate(made)
    ]
    for at, member in enumerate(members):
        member.note_health("a cold" if at in unwell else None)
    crowd = Providers(configured, Scripted())
    crowd._members = members
    crowd._targets = {each.name: [each] for each in members}
    crowd._targets["g"] = [each for each in members if each.group == "g"]

    async def job(chain: list[str], priority: int, *, broken: bool) -> tuple[Source, dispatch.Answer | JobError]:
        source = Source(WINDOWS, fault=BROKEN if broken else None)
        known = tuple(name for name in chain if name in crowd._targets)
        try:
            return source, await crowd.transcribe(Decision(None, chain[0], known), source.recording(priority=priority))
        except JobError as error:
            return source, error

    async def scenario() -> list[Any]:
        tasks = []
        for chain, priority, broken, cancelled in wanted:
            task = asyncio.create_task(job(chain, priority, broken=broken))
            tasks.append(task)
            if cancelled is not None:
                asyncio.get_running_loop().create_task(cancel(task, cancelled))
        async with asyncio.timeout(20):
            return await asyncio.gather(*tasks, return_exceptions=True)

    async def cancel(task: asyncio.Task[Any], turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()

    for (chain, _priority, broken, cancelled), ended in zip(wanted, asyncio.run(scenario()), strict=True):
        if isinstance(ended, BaseException):
            assert isinstance(ended, asyncio.CancelledError)
            assert cancelled is not None
            continue
        source, outcome = ended
        assert source.taken <= WINDOWS
        assert len(set(source.done)) == len(source.done)
        told = [index for index, _text in source.told]
        assert told == sorted(set(told))
        if broken and outcome is not BROKEN:
            assert isinstance(outcome, ProviderFailedError | ProviderRefusedError)  # nobody came to its end
        elif isinstance(outcome, dispatch.Answer):
            assert [each.index for each in outcome.heard.windows] == list(range(WINDOWS))
            assert source.taken == WINDOWS
            assert outcome.provider in [each.provider for name in chain for each in crowd._targets.get(name, [])]
            assert outcome.provider.name not in dict(outcome.tried)
    for member, (_script, concurrency, _group, _weight) in zip(members, made, strict=True):
        assert (member.places.taken, member.places.waiting) == (0, 0)
        assert isinstance(member.provider, Unreliable)
        assert member.provider.now == 0
        assert member.provider.most <= (concurrency or (5 if concurrency is None else len(wanted)))
