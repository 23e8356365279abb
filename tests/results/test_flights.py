"""Who goes ahead with a recording, and who waits: every race by its name."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.store.outcomes import transcript
from v2td.results.flights import Flight, Flights, Kept
from v2td.results.found import Found, of_transcript

AUDIO = "ab" * 32
ONE, OTHER, THIRD = frozenset({"one"}), frozenset({"other"}), frozenset({"one", "other"})


def found(digest: str = "one", audio: str = AUDIO, texts: int = 1) -> Found:
    return of_transcript(transcript(7, *("text",) * texts, text_sha256=digest, audio_sha256=audio))


class Crowd:
    """Jobs that ask for a recording; each is a task whose result is what it got."""

    def __init__(self) -> None:
        self.flights = Flights()
        self.jobs: list[asyncio.Task[Found | Flight]] = []

    async def arrives(
        self, digests: frozenset[str] = ONE, priority: int = 5, audio: str = AUDIO
    ) -> asyncio.Task[Found | Flight]:
        job = asyncio.ensure_future(self.flights.join(audio, digests, priority))
        self.jobs.append(job)
        await settled()
        return job

    async def ahead(self, **how: object) -> Flight:
        """Arrive and go ahead at once."""
        return flight_of(await self.arrives(**how))  # type: ignore[arg-type]

    def flying(self) -> list[int]:
        """Which of the jobs go ahead or have done so."""
        return [n for n, job in enumerate(self.jobs) if done(job) and isinstance(job.result(), Flight)]

    def served(self) -> list[int]:
        """Which of the jobs have a text."""
        return [n for n, job in enumerate(self.jobs) if done(job) and isinstance(job.result(), Found)]

    def waiting(self) -> list[int]:
        return [n for n, job in enumerate(self.jobs) if not job.done()]


def done(job: asyncio.Task[Found | Flight]) -> bool:
    return job.done() and not job.cancelled()


def flight_of(job: asyncio.Task[Found | Flight]) -> Flight:
    assert job.done()
    flight = job.result()
    assert isinstance(flight, Flight)
    return flight


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    with crowded() as crowd:
        yield crowd


@contextmanager
def crowded() -> Iterator[Crowd]:
    crowd = Crowd()
    yield crowd
    assert not crowd.waiting(), "somebody waits for ever"


async def test_one_goes_ahead_and_all_have_its_text(crowd: Crowd) -> None:
    flight = await crowd.ahead()
    for _ in range(99):
        await crowd.arrives()
    assert crowd.flying() == [0]
    crowd.flights.land(flight, found())
    await settled()
    assert crowd.served() == list(range(1, 100))
    assert {each.level for job in crowd.jobs if isinstance(each := job.result(), Found)} == {"in_flight"}
    assert len(crowd.flights) == 0


async def test_all_that_come_at_the_same_moment(crowd: Crowd) -> None:
    jobs = [asyncio.ensure_future(crowd.flights.join(AUDIO, ONE, 5)) for _ in range(50)]
    crowd.jobs += jobs
    await settled()
    assert crowd.flying() == [0]
    crowd.flights.land(flight_of(jobs[0]), found())
    await settled()
    assert crowd.served() == list(range(1, 50))


async def test_who_comes_between_the_text_and_its_row_has_it_too(crowd: Crowd) -> None:
    crowd.flights.land(await crowd.ahead(), found())
    await crowd.arrives()
    assert crowd.served() == [1]


async def test_one_takes_over_when_the_one_ahead_fails(crowd: Crowd) -> None:
    flight = await crowd.ahead()
    for _ in range(3):
        await crowd.arrives()
    crowd.flights.land(flight, None)
    await settled()
    assert crowd.flying() == [0, 1]
    crowd.flights.land(flight_of(crowd.jobs[1]), found())
    await settled()
    assert crowd.served() == [2, 3]


async def test_what_fails_for_all_fails_for_more_and_more_at_once(crowd: Crowd) -> None:
    flight = await crowd.ahead()
    for _ in range(30):
        await crowd.arrives()
    rounds = []
    landed: set[int] = set()
    while len(landed) < 31:
        ahead = [n for n in crowd.flying() if n not in landed]
        rounds.append(len(ahead))
        for n in ahead:
            flight = flight_of(crowd.jobs[n])
            crowd.flights.land(flight, None)
            landed.add(n)
        await settled()
    assert rounds[:2] == [1, 1]  # one takes over
    assert len(rounds) < 8  # and not 31
    assert crowd.flying() == list(range(31))


async def test_one_that_is_stopped_counts_for_no_failure(crowd: Crowd) -> None:
    await crowd.arrives()
    for _ in range(9):
        await crowd.arrives()
    for n in range(9):
        crowd.flights.land(flight_of(crowd.jobs[n]), None, failed=False)
        await settled()
        assert crowd.flying() == list(range(n + 2))
    crowd.flights.land(flight_of(crowd.jobs[9]), found())


async def test_a_wait_that_is_cancelled_leaves_nothing_and_holds_nobody_up(crowd: Crowd) -> None:
    flight = await crowd.ahead()
    first, second = await crowd.arrives(), await crowd.arrives()
    first.cancel()
    await settled()
    crowd.flights.land(flight, None)
    await settled()
    assert first.cancelled()
    crowd.flights.land(flight_of(second), None)
    assert len(crowd.flights) == 0


async def test_the_one_to_take_over_is_cancelled_at_the_same_moment(crowd: Crowd) -> None:
    flight = await crowd.ahead()
    first, second, third = [await crowd.arrives() for _ in range(3)]
    crowd.flights.land(flight, None)
    first.cancel()  # it was told, and has not run since
    await settled()
    assert first.cancelled()
    crowd.flights.land(flight_of(second), found())
    await settled()
    assert done(third)
    assert isinstance(third.result(), Found)


async def test_one_that_got_the_text_is_cancelled_at_the_same_moment(crowd: Crowd) -> None:
    flight = await crowd.ahead()
    first, second = await crowd.arrives(), await crowd.arrives()
    crowd.flights.land(flight, found())
    first.cancel()
    await settled()
    assert isinstance(second.result(), Found)
    assert len(crowd.flights) == 0


async def test_another_recording_or_another_digest_waits_for_nobody(crowd: Crowd) -> None:
    flights = [await crowd.ahead(), await crowd.ahead(digests=OTHER), await crowd.ahead(audio="cd" * 32)]
    for flight in flights:
        crowd.flights.land(flight, None)
    assert len(crowd.flights) == 0


async def test_digests_overlap(crowd: Crowd) -> None:
    """A job that any member of a group may get waits for one that has one of them, and takes what fits."""
    flight = await crowd.ahead()
    both = await crowd.arrives(THIRD)
    assert crowd.waiting() == [1]
    crowd.flights.land(flight, found("one"))
    await settled()
    assert isinstance(both.result(), Found)


async def test_a_text_of_another_provider_serves_those_who_may_have_it(crowd: Crowd) -> None:
    """The one ahead fell back: who asked for the first one alone goes on by itself."""
    flight = await crowd.ahead()
    strict, open_ = await crowd.arrives(ONE), await crowd.arrives(THIRD)
    crowd.flights.land(flight, found("other"))
    await settled()
    assert isinstance(open_.result(), Found)
    crowd.flights.land(flight_of(strict), found("one"))
    assert len(crowd.flights) == 0


async def test_the_more_urgent_does_not_wait_for_the_less_urgent(crowd: Crowd) -> None:
    batch = await crowd.ahead(priority=9)
    urgent = await crowd.ahead(priority=0)
    await crowd.arrives(priority=0)
    await crowd.arrives(priority=9)
    assert crowd.waiting() == [2, 3]
    crowd.flights.land(urgent, found())
    await settled()
    assert crowd.served() == [2, 3]
    crowd.flights.land(batch, found())


async def test_the_most_urgent_takes_over(crowd: Crowd) -> None:
    flight = await crowd.ahead(priority=0)
    low, high = await crowd.arrives(priority=7), await crowd.arrives(priority=3)
    crowd.flights.land(flight, None)
    await settled()
    assert crowd.waiting() == [1]
    crowd.flights.land(flight_of(high), found())
    await settled()
    assert isinstance(low.result(), Found)


async def test_landing_twice_counts_once(crowd: Crowd) -> None:
    flight = await crowd.ahead()
    crowd.flights.land(flight, found())
    crowd.flights.land(flight, None)
    await crowd.arrives()
    assert crowd.served() == [1]


async def test_a_text_that_was_made_elsewhere_is_the_newest(crowd: Crowd) -> None:
    crowd.flights.land(await crowd.ahead(), found())
    again = found(texts=3)
    crowd.flights.keep(again)
    job = await crowd.arrives()
    kept = job.result()
    assert isinstance(kept, Found)
    assert kept.segments == again.segments


def test_what_is_kept_is_bounded_and_the_newest_stays() -> None:
    kept = Kept(weight=100)
    for number in range(50):
        kept.put(found(audio=str(number), texts=9))  # weighs 10
    assert len(kept) == 10
    assert kept.get("39", ONE) is None
    assert kept.get("40", ONE) is not None
    kept.put(found(audio="long", texts=1000))
    assert len(kept) == 1
    assert kept.get("long", ONE) is not None
    kept.put(found(audio="short", texts=9))
    assert kept.get("short", ONE) is not None
    assert len(kept) == 1


async def test_what_is_kept_goes_after_a_while() -> None:
    kept = Kept(seconds=0.05)
    kept.put(found())
    assert kept.get(AUDIO, ONE) is not None
    await asyncio.sleep(0.06)
    assert kept.get(AUDIO, ONE) is None
    assert len(kept) == 0


async def test_any_crowd_gets_through(crowd: Crowd) -> None:
    """Jobs of all kinds come, fail, are stopped and settle in pseudo-random order; each ends, and nothing stays."""
    for seed in range(200):
        draw = random.Random(seed)
        flights = Flights()
        ended = 0

        async def job(
            digests: frozenset[str], priority: int, *, flights: Flights = flights, draw: random.Random = draw
        ) -> None:
            nonlocal ended
            for _ in range(draw.randrange(3)):
                await asyncio.sleep(0)
            joined = await flights.join(AUDIO, digests, priority)
            if isinstance(joined, Flight):
                try:
                    for _ in range(draw.randrange(4)):
                        await asyncio.sleep(0)
                    how = draw.random()
                    text = None if how < 0.7 else found(draw.choice(["one", "other", "third"]))
                    flights.land(joined, text, failed=how < 0.4)
                finally:
                    flights.land(joined, None, failed=False)
            else:
                assert joined.text_sha256 in digests
            ended += 1

        tasks = [asyncio.ensure_future(job(draw.choice([ONE, OTHER, THIRD]), draw.randrange(10))) for _ in range(30)]
        doomed = draw.sample(tasks, 8)
        for each in doomed:
            for _ in range(draw.randrange(3)):
                await asyncio.sleep(0)
            each.cancel()
        async with asyncio.timeout(10):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(each is None or isinstance(each, asyncio.CancelledError) for each in outcomes)
        assert ended >= 22
        assert len(flights) == 0
