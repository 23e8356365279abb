"""Commands are given once, reach who listens, and count until the job has its outcome or is asked for anew."""

import asyncio
from uuid import UUID

import pytest

from tests.store.conftest import Writing, until
from tests.store.outcomes import coordinates, failure, transcript
from v2td.config import DatabaseSettings, KafkaSettings
from v2td.jobs import Outcome, SourceRecord
from v2td.store import Database, audit, commands, forget_old, instance_name, ledger, listening, redos
from v2td.store.commands import Command
from v2td.store.connection import Connection

ONE, OTHER = coordinates(1).row_id(), coordinates(2).row_id()
EMPTY = SourceRecord(None, None, ())


async def open_ids(store: Database) -> list[tuple[str, UUID | None]]:
    pages = [page async for page in commands.open_commands(store)]
    return [(each.command.kind, each.command.job) for page in pages for each in page]


async def test_a_command_is_given_told_and_written_down(
    store: Database, sql: Connection, settings: DatabaseSettings
) -> None:
    heard: list[str] = []
    async with listening(settings, commands.CHANNEL, heard.append, lambda: None):
        number = await commands.give(store, Command("priority", ONE, priority=0), "api \x1b[31m")

        async def told() -> bool:
            return heard == [str(number)]

        await until(told)
    (given,) = await commands.these(store, [number])
    assert (given.command, given.actor) == (Command("priority", ONE, 0), "api \\x1b[31m")
    (entry,) = await audit.entries(store)
    assert (entry.action, entry.target, entry.actor, entry.error) == ("priority", str(ONE), given.actor, None)
    assert entry.details == {"command": number, "priority": 0}


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "cancel"},
        {"kind": "cancel", "job": ONE, "instance": "one"},
        {"kind": "cancel", "job": ONE, "priority": 1},
        {"kind": "priority", "job": ONE},
        {"kind": "priority", "job": ONE, "priority": 10},
        {"kind": "pause"},
        {"kind": "pause", "job": ONE, "group_id": "group"},
    ],
)
def test_a_command_says_what_it_takes(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"takes|runs|reaches"):
        Command(**wrong)  # type: ignore[arg-type]  # that is what is tried


async def test_the_listener_knows_when_its_connection_is_gone(
    store: Database, sql: Connection, settings: DatabaseSettings
) -> None:
    lost = asyncio.Event()
    async with listening(settings, commands.CHANNEL, lambda _: None, lost.set) as line:
        await line.check()
        await sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", commands.CHANNEL
        )
        async with asyncio.timeout(10):
            await lost.wait()
        assert line.lost.is_set()


@pytest.mark.parametrize("outcome", [transcript(1), failure(1)], ids=["transcript", "failure"])
async def test_the_outcome_closes_the_jobs_commands(outcome: Outcome, writing: Writing, store: Database) -> None:
    await commands.give_all(store, [Command("cancel", ONE), Command("priority", ONE, 1), Command("cancel", OTHER)], "x")
    async with writing() as writer:
        await writer.write(outcome)
    assert await open_ids(store) == [("cancel", OTHER)]
    assert await commands.open_of(store, ONE) == []


async def test_what_waits_in_the_retry_topic_is_still_to_be_cancelled(writing: Writing, store: Database) -> None:
    await commands.give(store, Command("cancel", ONE), "x")
    async with writing() as writer:
        await writer.write(failure(1, retried_later=True))
    assert await open_ids(store) == [("cancel", ONE)]
    assert await commands.ended(store, [ONE]) == set()


async def test_a_job_that_has_ended_takes_no_command(writing: Writing, store: Database) -> None:
    async with writing() as writer:
        await writer.write(transcript(1))
    await commands.give_all(store, [Command("cancel", ONE), Command("cancel", OTHER)], "x")
    assert await open_ids(store) == [("cancel", OTHER)]
    newest, older = await audit.entries(store)
    assert (newest.error, older.error) == (None, "the job has ended")
    assert await commands.ended(store, [ONE, OTHER]) == {ONE}


async def test_who_asks_anew_wants_it_whatever_was_cancelled_before(
    writing: Writing, store: Database, sql: Connection
) -> None:
    """The command came while the outcome was being written: nobody saw it then."""
    async with writing() as writer:
        await writer.write(failure(1))
        await writer.write(transcript(2))
    await commands.give_all(store, [Command("cancel", ONE), Command("cancel", OTHER)], "x")
    await sql.execute("UPDATE job_commands SET done_at = NULL")
    await ledger.request(store, [ONE], again=False)
    assert await open_ids(store) == [("cancel", OTHER)]
    await redos.note(store, None, None, [redos.Wish(OTHER, "ab")])
    assert await open_ids(store) == []
    await commands.give_all(store, [Command("cancel", ONE), Command("cancel", OTHER)], "x")
    assert await open_ids(store) == [("cancel", ONE), ("cancel", OTHER)], "these are for what was asked for"


async def test_the_last_word_counts_whoever_it_was_for(store: Database) -> None:
    async def say(kind: commands.Kind, instance: str | None = None, group: str = "group") -> list[str | None]:
        await commands.give(store, Command(kind, group_id=group, instance=instance), "x")
        words = [await commands.last_word(store, "group", name) for name in ("one", "two")]
        return [None if word is None else word.command.kind for word in words]

    assert await say("pause", group="another") == [None, None]
    assert await say("pause", "one") == ["pause", None]
    assert await say("resume") == ["resume", "resume"]
    assert await say("pause") == ["pause", "pause"]
    assert await say("resume", "two") == ["pause", "resume"]


async def test_old_commands_are_forgotten_but_not_that_something_is_paused(store: Database, sql: Connection) -> None:
    pauses = [Command("pause", group_id="group", instance=name) for name in (None, "one", None, "one", "two")]
    await commands.give_all(store, [Command("cancel", ONE), *pauses, Command("pause", group_id="b")], "x")
    await sql.execute("UPDATE job_commands SET created_at = now() - interval '40 days'")
    assert await forget_old(store, 30) == 3  # the cancel, and two that later words replace
    left = [(row["group_id"], row["instance"]) for row in await sql.fetch("SELECT * FROM job_commands ORDER BY id")]
    assert left == [("group", None), ("group", "one"), ("group", "two"), ("b", None)]
    assert len(await audit.entries(store, limit=100)) == 7, "nothing is taken out of the audit log"


async def test_thousands_of_commands_come_in_pages(store: Database) -> None:
    jobs = [coordinates(offset).row_id() for offset in range(2100)]
    given = await commands.give_all(store, [Command("cancel", job) for job in jobs], "x")
    pages = [page async for page in commands.open_commands(store)]
    assert [len(page) for page in pages] == [1000, 1000, 100]
    assert [each.id for page in pages for each in page] == given
    first = await audit.entries(store, limit=1500)
    rest = await audit.entries(store, limit=1500, before=first[-1].id)
    assert (len(first), len(rest)) == (1500, 600)


async def test_jobs_are_found_by_what_their_messages_called_them(writing: Writing, store: Database) -> None:
    async with writing() as writer:
        await writer.write(failure(1, job_id="mine"))
    assert await commands.called(store, ["mine", "other", "nul\0"]) == {"mine": {ONE}}


def test_an_instance_has_its_own_name_or_one_made_of_its_process() -> None:
    assert instance_name(KafkaSettings(group_instance_id="worker-3")) == "worker-3"
    assert instance_name(KafkaSettings(client_id="v2td")).startswith("v2td@")
