"""When a command reaches a job and when it does not: in the real pipeline, whose downloads a test holds up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from v2td.attempt import Hearers
from v2td.commands import Commands, Following
from v2td.config import DatabaseSettings, PipelineSettings, Settings
from v2td.delivery import Delivery
from v2td.errors import ErrorClass, JobError
from v2td.jobs import Audio, Coordinates, Failure, Job, Outcome, SourceRecord
from v2td.pipeline import Pipeline, Rooms
from v2td.progress import Journals
from v2td.replays import Replays
from v2td.store import commands as store
from v2td.store import open_database, upgrade
from v2td.store.commands import Command, Given
from v2td.store.entry import Durable

NOWHERE: Any = None
AT = Coordinates("cluster", "topic", 0, 7, 1_700_000_000_000)
SETTINGS = Settings(pipeline=PipelineSettings(max_in_flight=1))


class Holding:
    """Downloads that end when a test says so, letters that go nowhere, and rows that are kept."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.begun: list[str] = []
        self.outcomes: dict[UUID, Outcome] = {}

    async def fetch(self, url: str, _version_id: str | None) -> Audio:
        self.begun.append(url)
        await self.let_go.wait()
        raise JobError(ErrorClass.NOT_FOUND, url)

    async def send(self, failure: Failure) -> None:
        await asyncio.sleep(0)

    async def write(self, outcome: Outcome) -> Durable:
        assert isinstance(outcome, Failure)
        self.outcomes[outcome.coordinates.row_id()] = outcome
        await asyncio.sleep(0)
        return Durable(outcome, new=True)


class Outputs:
    def check(self, job: Job) -> None:
        """Nothing to write anywhere."""


def pipeline(holding: Any, commands: Commands) -> Pipeline:
    journals = Journals(NOWHERE, "demo", 0)
    hearers = Hearers(holding, NOWHERE, NOWHERE, NOWHERE, None, journals)
    outputs: Any = Outputs()
    rooms = Rooms(hearers, outputs, Delivery(holding, holding), journals, Replays(NOWHERE, SETTINGS), commands)
    return Pipeline(rooms, SETTINGS, 2)


def given(job: UUID, kind: store.Kind = "cancel", number: int = 1) -> Given:
    priority = 0 if kind == "priority" else None
    return Given(number, Command(kind, job, priority), "test", datetime.now(UTC))


def three() -> tuple[SourceRecord, list[UUID]]:
    """A record that names three recordings, and their jobs."""
    records = [
        {
            "eventName": "s3:ObjectCreated:Put",
            "eventSource": "minio:s3",
            "s3": {"bucket": {"name": "b"}, "object": {"key": f"{n}.wav"}},
        }
        for n in range(3)
    ]
    ids = [
        Coordinates(AT.cluster_id, AT.topic, AT.partition, AT.offset, AT.timestamp_ms, index).row_id()
        for index in range(3)
    ]
    return SourceRecord(None, json.dumps({"Records": records}).encode(), ()), ids


async def until_begun(holding: Holding, count: int) -> None:
    async with asyncio.timeout(5):
        while len(holding.begun) < count:
            await asyncio.sleep(0)


async def test_of_a_records_jobs_those_that_are_meant_end_before_their_turn_or_in_it() -> None:
    holding, commands = Holding(), Commands(NOWHERE, SETTINGS)
    record, (first, second, third) = three()
    running = asyncio.create_task(pipeline(holding, commands).handle(AT, record, frozenset()))
    await until_begun(holding, 1)
    commands._take(given(third))  # it waits for a place
    commands._take(given(first))
    commands._take(given(first, number=2))  # asked twice, done once
    await until_begun(holding, 2)
    assert {job: each.error_class for job, each in holding.outcomes.items() if isinstance(each, Failure)} == {
        first: ErrorClass.CANCELLED,
        third: ErrorClass.CANCELLED,
    }
    holding.let_go.set()
    await running
    ends = [holding.outcomes[job] for job in (first, second, third)]
    said = [(each.error_class.value, each.attempts, each.reason) for each in ends if isinstance(each, Failure)]
    assert said[0] == ("cancelled", 1, "cancelled by test")
    assert said[1][:2] == ("not_found", 1)
    assert said[2] == ("cancelled", 0, "cancelled by test")
    assert commands.under_way == {}


async def test_what_is_told_of_a_job_has_the_priority_that_it_was_given() -> None:
    holding, commands = Holding(), Commands(NOWHERE, SETTINGS)
    record, (first, second, third) = three()
    works = pipeline(holding, commands)
    running = asyncio.create_task(works.handle(AT, record, frozenset()))
    await until_begun(holding, 1)
    commands._take(given(first, "priority"))
    (trail,) = works.board.under_way
    assert (trail.job.id, trail.priority) == (first, 0)
    for job in (second, third):  # they wait for a place
        commands._take(given(job, "priority", 2))
    commands._take(given(third, number=3))
    holding.let_go.set()
    await running
    told = {each.trail.job.id: each.trail.priority for each in works.board.recent}
    assert told == {first: 0, second: 0, third: 0}


async def test_who_stops_the_daemon_meanwhile_wins() -> None:
    """The record stays unfinished, and is delivered again; the command is still open then."""
    holding, commands = Holding(), Commands(NOWHERE, SETTINGS)
    record, (first, *_) = three()
    running = asyncio.create_task(pipeline(holding, commands).handle(AT, record, frozenset()))
    await until_begun(holding, 1)
    commands._take(given(first))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert holding.outcomes == {}


async def test_a_job_that_has_its_outcome_is_not_reached() -> None:
    commands = Commands(NOWHERE, SETTINGS)
    job = Job(AT, "https://example.com/a.wav")
    with commands.following(job) as following:
        assert following.cancelled() is None
        commands._take(given(job.id))
        await asyncio.sleep(0)
    assert commands._cancels == {}


@pytest.fixture
async def known(database: str) -> AsyncIterator[tuple[Commands, Following, Any]]:
    """Commands that have read the table, in which a job is to be cancelled and hurried, and that job."""
    await upgrade(database)
    job = Job(AT, "https://example.com/a.wav")
    async with open_database(DatabaseSettings(dsn=SecretStr(database), pool_min=0)) as opened:
        await store.give_all(opened, [Command("priority", job.id, 0), Command("cancel", job.id)], "test")
        commands = Commands(opened, SETTINGS)
        await commands.read()
        yield commands, commands.following(job), opened


async def test_what_was_asked_before_the_job_came_is_done_when_it_comes(known: tuple[Commands, Following, Any]) -> None:
    commands, following, _ = known
    with following:
        with pytest.raises(asyncio.CancelledError):
            await commands.catch_up(following)
        assert following.cancelled() == "cancelled by test"
        assert following.value == 0
        await asyncio.sleep(0)  # and no cancellation is left


async def test_what_does_not_count_any_more_is_not_done(known: tuple[Commands, Following, Any]) -> None:
    """Somebody asked for the job anew, and this instance has not heard of that."""
    commands, following, database = known
    async with database.acquire() as connection:
        await store.done(connection, [following.job.id])
    with following:
        await commands.catch_up(following)
        assert following.cancelled() is None
        assert following.value == 5
