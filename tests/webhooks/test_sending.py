"""When deliveries are sent, by whom, how many at once, and how long they are kept: a real receiver, real Postgres."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from tests.store.outcomes import transcript
from tests.webhooks.conftest import MakeSettings, OpenWorld, Receiver, receiving, silence, status
from v2td.store import webhooks

WITH_URL = b'{"audio_url": "x://y", "webhook_url": "%s", "metadata": {"case": 9}}'


async def test_a_receiver_that_asks_to_wait_is_left_alone(
    open_world: OpenWorld, make_settings: MakeSettings, receiver: Receiver
) -> None:
    """As long as it asks, but for max_seconds at most."""
    receiver.answers += [status(503, retry_after="3600"), status(500, retry_after="3600")]
    async with open_world(make_settings(max_seconds=300)) as world:
        await world.deliver(transcript(1, job={"webhook_url": receiver.url}))
        await receiver.until(1)
        pause = "SELECT * FROM webhooks WHERE last_error IS NOT NULL AND next_at - now() BETWEEN '4 min' AND '5 min'"
        async with asyncio.timeout(30):
            while not await world.rows(pause):
                await asyncio.sleep(0.02)
        await world.deliver(transcript(2, job={"webhook_url": receiver.url}))
        await world.until("delivered")
    assert len(receiver.got) == 3, "500 does not choose its pause"


async def test_who_hangs_holds_up_no_other_and_is_asked_by_four_at_most(
    open_world: OpenWorld, make_settings: MakeSettings, receiver: Receiver
) -> None:
    async with receiving() as hung, open_world(make_settings(timeout_seconds=60, concurrency=6)) as world:
        hung.answers += [silence] * 20
        await world.deliver(*(transcript(number, job={"webhook_url": hung.url}) for number in range(20)))
        await hung.until(4)
        await world.deliver(*(transcript(number, job={"webhook_url": receiver.url}) for number in range(20, 30)))
        await world.until("delivered", 10)
        assert (hung.most_at_once, len(hung.got)) == (4, 4)
        assert receiver.most_at_once <= 2, "of six the others hold four"
    rows = await world.rows("SELECT state, attempts, next_at <= now() AS due FROM webhooks WHERE state = 'waiting'")
    assert len(rows) == 20
    assert all(row["attempts"] == 0 and row["due"] for row in rows), "those under way at the end were given back"


async def test_two_instances_tell_each_once(
    open_world: OpenWorld, make_settings: MakeSettings, receiver: Receiver
) -> None:
    settings = make_settings(url=receiver.url)
    async with open_world(settings) as world, open_world(settings) as other:
        await asyncio.gather(
            world.deliver(*(transcript(number) for number in range(20))),
            other.deliver(*(transcript(number) for number in range(20, 40))),
        )
        await world.until("delivered", 40)
    assert len({each.id for each in receiver.got}) == len(receiver.got) == 40


async def test_what_ended_is_forgotten_in_time(
    open_world: OpenWorld, make_settings: MakeSettings, receiver: Receiver
) -> None:
    async with open_world(make_settings(url=receiver.url), run=False) as world:
        await world.deliver(*(transcript(number) for number in range(3)))
        await world.rows("UPDATE webhooks SET created_at = now() - interval '25 hours'")
        await world.deliver(transcript(3))
        keep = transcript(0).job.id
        await world.rows(f"UPDATE webhooks SET state = 'dead' WHERE job <> '{keep}'")
        assert await webhooks.forget(world.database, days=2) == 0
        assert await webhooks.forget(world.database, days=1) == 2
        assert {row["job"] for row in await world.rows()} == {keep, transcript(3).job.id}


async def test_while_postgres_takes_no_notes_outcomes_wait_and_then_are_told(
    open_world: OpenWorld, make_settings: MakeSettings, receiver: Receiver
) -> None:
    async with open_world(make_settings(url=receiver.url)) as world:
        await world.rows("ALTER TABLE webhooks RENAME TO away")
        delivering = asyncio.create_task(world.deliver(transcript(1)))
        async with asyncio.timeout(30):
            while not await world.rows("SELECT FROM transcriptions"):
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        assert not delivering.done(), "its record is not to be resolved"
        await world.rows("ALTER TABLE away RENAME TO webhooks")
        await delivering
        await world.until("delivered")
    assert len(receiver.got) == 1


async def test_of_many_hosts_none_is_passed_over(
    open_world: OpenWorld, make_settings: MakeSettings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More hosts than are looked at together wait; those that are due are told without a pause of the poll."""
    monkeypatch.setattr("v2td.webhooks.webhooks.POLL_SECONDS", 600.0)
    others = """
        INSERT INTO webhooks (id, job, revision, event, url, host, next_at)
        SELECT gen_random_uuid(), gen_random_uuid(), 0, 'failed', 'http://x/', h || n, now() + '1 hour'
        FROM generate_series(1, 600) n, (VALUES ('1.'), ('z.')) other (h)
    """
    async with open_world(make_settings(url=receiver.url)) as world:
        await world.rows(others)
        await world.deliver(*(transcript(number) for number in range(12)))
        await world.until("delivered", 12)
        found = list(await webhooks.hosts(world.database, "z."))
        assert (len(found), found) == (webhooks.HOSTS_AT_ONCE, sorted(found)), "in Python's own order"
    assert len(receiver.got) == 12


async def test_a_request_under_way_at_a_stop_may_end(
    open_world: OpenWorld, make_settings: MakeSettings, receiver: Receiver
) -> None:
    stopping = asyncio.Event()

    async def late(_: web.Request) -> web.Response:
        await stopping.wait()
        return web.Response(status=204)

    receiver.answers += [late]
    async with open_world(make_settings(url=receiver.url)) as world:
        await world.deliver(transcript(1))
        await receiver.until(1)
        asyncio.get_running_loop().call_later(0.2, stopping.set)
    (row,) = await world.rows()
    assert (row["state"], row["attempts"]) == ("delivered", 1)


async def test_what_a_dead_instance_had_under_way_is_taken_over(
    open_world: OpenWorld, make_settings: MakeSettings, receiver: Receiver
) -> None:
    settings = make_settings(url=receiver.url)
    async with open_world(settings, run=False) as dead:
        await dead.deliver(transcript(1))
        (host,) = await webhooks.hosts(dead.database)
        assert len(await webhooks.claim(dead.database, 9, {host: 4}, lease_seconds=0.5)) == 1
        assert await webhooks.claim(dead.database, 9, {host: 4}, lease_seconds=0.5) == []
    async with open_world(settings) as world:
        (row,) = await world.until("delivered")
    assert row["attempts"] == 2
