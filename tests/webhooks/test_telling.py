"""Who is told of an ended job, what, and how often: a real receiver, real Postgres."""

from __future__ import annotations

from tests.store.outcomes import coordinates, failure, transcript
from tests.webhooks.conftest import MakeSettings, OpenWorld, Receiver, receiving, status
from v2td.jobs import Redo, Replay, SourceRecord
from v2td.store import redos, webhooks

WITH_URL = b'{"audio_url": "x://y", "webhook_url": "%s", "metadata": {"case": 9}}'


async def test_a_transcription_is_told_signed_and_once(
    open_world: OpenWorld, make_settings: MakeSettings, receiver: Receiver, secret: str
) -> None:
    heard = transcript(1, "xin chào", job={"metadata": {"case": 9}}, timings={"outputs": ["s3://texts/1.json"]})
    async with open_world(make_settings(url=receiver.url)) as world:
        await world.deliver(heard)
        (row,) = await world.until("delivered")
        await world.deliver(heard)
        assert await webhooks.waiting(world.database) == 0
    (request,) = receiver.got
    message = request.verified(secret)
    assert request.headers["content-type"] == "application/json; charset=utf-8"
    assert (request.id, request.path) == (str(row["id"]), "/hook")
    assert (message["type"], message["timestamp"]) == ("transcription.completed", row["created_at"].isoformat())
    data = message["data"]
    assert (data["id"], data["job_id"], data["text"]) == (str(heard.job.id), "job-1", "xin chào")
    assert (data["metadata"], data["outputs"], data["revision"]) == ({"case": 9}, ["s3://texts/1.json"], 0)
    assert (data["text_omitted"], data["status"]) == (False, "transcribed")


async def test_failures_are_told_with_the_metadata_of_their_messages(
    open_world: OpenWorld, make_settings: MakeSettings, receiver: Receiver, secret: str
) -> None:
    """Also to a message's own URL; and nobody is told of what is tried again later, or of other events."""
    async with receiving() as other, open_world(make_settings(url=other.url, events=("transcribed",))) as world:
        failed = failure(1, metadata={"case": 9}, webhook_url=f"{receiver.url}?token=canary")
        await world.deliver(failed, failure(2, webhook_url=receiver.url, retried_later=True), failure(3))
        (row,) = await world.until("delivered")
        assert other.got == []
    (request,) = receiver.got
    message = request.verified(secret)
    assert request.path == "/hook?token=canary"
    assert message["type"] == "transcription.failed"
    assert (message["data"]["error_class"], message["data"]["metadata"]) == ("not_audio", {"case": 9})
    assert message["data"]["reason"] == "this is text"
    assert row["url"].endswith("?token=canary")


async def test_both_urls_are_told_and_each_key_signs(
    open_world: OpenWorld, make_settings: MakeSettings, receiver: Receiver, secret: str
) -> None:
    old = "whsec_" + "b2xk" * 8
    async with open_world(make_settings(url=receiver.url, old_secret=old)) as world:
        await world.deliver(transcript(1, job={"webhook_url": f"{receiver.url}/own"}))
        await world.until("delivered", 2)
    assert sorted(each.path for each in receiver.got) == ["/hook", "/hook/own"]
    assert len({each.id for each in receiver.got}) == 2
    for each in receiver.got:
        assert each.verified(secret) == each.verified(old)


async def test_what_fails_is_tried_again_with_the_same_body(
    open_world: OpenWorld, make_settings: MakeSettings, receiver: Receiver, secret: str
) -> None:
    receiver.answers += [status(500), status(302, location=f"{receiver.url}/elsewhere"), status(404)]
    async with open_world(make_settings(url=receiver.url)) as world:
        await world.deliver(transcript(1))
        (row,) = await world.until("delivered")
    assert row["attempts"] == len(receiver.got) == 4
    assert {each.path for each in receiver.got} == {"/hook"}, "redirects are not followed"
    assert len({(each.id, each.body) for each in receiver.got}) == 1
    assert all(each.verified(secret) for each in receiver.got)


async def test_who_is_gone_or_never_answers_well_is_given_up(
    open_world: OpenWorld, make_settings: MakeSettings, receiver: Receiver
) -> None:
    receiver.answers += [status(410), *[status(500)] * 3]
    async with open_world(make_settings(attempts=3)) as world:
        await world.deliver(transcript(1, job={"webhook_url": receiver.url}))
        (gone,) = await world.until("dead")
        await world.deliver(transcript(2, job={"webhook_url": receiver.url}))
        _, given_up = await world.until("dead", 2)
    assert (gone["attempts"], gone["last_error"]) == (1, "the receiver answered 410: it wants no more of these")
    assert (given_up["attempts"], given_up["last_error"]) == (3, "the receiver answered 500")
    assert len(receiver.got) == 4


async def test_nothing_is_lost_when_a_daemon_dies_before_it_notes(
    open_world: OpenWorld, make_settings: MakeSettings, receiver: Receiver, secret: str
) -> None:
    """The record comes again, and with it whom it wants told; what was noted is not noted twice."""
    record = SourceRecord(b"key", WITH_URL % receiver.url.encode(), ())
    url = {"webhook_url": receiver.url}
    heard = transcript(1, job={"record": record, "metadata": {"case": 9}, **url})
    failed = failure(2, record=record, metadata={"case": 9}, **url)
    again = Replay(coordinates(7))
    replayed = transcript(3, job={"record": record, "metadata": {"case": 9}, "replay": again, **url})
    async with open_world(make_settings(), run=False) as world:
        await world.deliver(heard, failed, replayed)
        assert await webhooks.waiting(world.database) == 3
        before = await world.rows()
        await world.rows("DELETE FROM webhooks")
        for row_id in (heard.job.id, failed.coordinates.row_id(), coordinates(7).row_id(), coordinates(9).row_id()):
            for _ in range(2):
                await world.delivery.tell_again([row_id], record)
        after = await world.rows()
    assert {row["id"] for row in after} == {row["id"] for row in before}
    assert len(after) == 3
    async with open_world(make_settings()) as world:  # the next daemon
        await world.until("delivered", 3)
    assert [each.verified(secret)["data"]["metadata"] for each in receiver.got] == [{"case": 9}] * 3
    assert {each.id for each in receiver.got} == {str(row["id"]) for row in before}


async def test_a_failure_that_was_done_again_meanwhile_is_not_told_any_more(
    open_world: OpenWorld, make_settings: MakeSettings, receiver: Receiver
) -> None:
    record = SourceRecord(b"key", b'{"audio_url": "x"}', ())
    async with open_world(make_settings(url=receiver.url), run=False) as world:
        await world.deliver(failure(1, record=record))
        again = Replay(coordinates(7))
        await world.rows("UPDATE failures SET replay_state = 'requested'")
        await world.deliver(transcript(1, job={"record": record, "replay": again}))
    async with open_world(make_settings(url=receiver.url)) as world:
        await world.until("delivered")
        rows = {row["event"]: row for row in await world.until("dead")}
    assert rows["failed"]["last_error"] == "what it tells of is gone: done again since, or deleted"
    assert [each.message["type"] for each in receiver.got] == ["transcription.completed"]


async def test_a_text_that_is_too_long_is_left_out(
    open_world: OpenWorld, make_settings: MakeSettings, receiver: Receiver, secret: str
) -> None:
    async with open_world(make_settings(url=receiver.url)) as world:
        await world.deliver(heard := transcript(1, *["chào " * 10_000] * 20))
        await world.until("delivered")
    (request,) = receiver.got
    data = request.verified(secret)["data"]
    assert (data["text"], data["text_omitted"]) == (None, True)
    assert data["transcript"] == f"/v1/transcripts/{heard.job.id}"


async def test_without_a_secret_nothing_is_noted(open_world: OpenWorld, make_settings: MakeSettings) -> None:
    async with open_world(make_settings(secret=None)) as world:
        await world.deliver(transcript(1, job={"webhook_url": "https://example.com/"}))
        assert await world.rows() == []
        assert not world.webhooks.wanted


async def test_replays_and_revisions_are_told_by_themselves(
    open_world: OpenWorld, make_settings: MakeSettings, receiver: Receiver
) -> None:
    """A replay that fails once more; a revision that is there, and one that will never be."""
    records = [SourceRecord(b"key", b'{"audio_url": "x%d"}' % number, ()) for number in range(3)]
    async with open_world(make_settings(url=receiver.url)) as world:
        failed = failure(1, record=records[0])
        await world.deliver(failed)
        await world.until("delivered", 1)
        await world.rows("UPDATE failures SET replay_state = 'requested'")
        await world.deliver(failure(1, record=records[0], reason="again", replay=Replay(coordinates(7))))
        await world.deliver(heard := transcript(2))
        for each in records[1:]:
            await redos.note(world.database, "large", None, [redos.Wish(heard.job.id, Replay.digest(each))])
        redone = {"record": records[1], "replay": Replay(coordinates(8)), "redo": Redo(1, "large")}
        await world.deliver(transcript(2, "good evening", job=redone, model="large"))
        redo = Redo(2, "large")
        await world.deliver(failure(2, record=records[2], replay=Replay(coordinates(9)), redo=redo, reason="too late"))
        await world.until("delivered", 5)
    told = [each.message["data"] for each in receiver.got]
    assert len({each.id for each in receiver.got}) == 5
    of_failure = [(each["revision"], each["reason"]) for each in told if each["id"] == str(failed.coordinates.row_id())]
    assert of_failure == [(0, "this is text"), (0, "again")]
    others = {each["revision"]: each["text"] or each["reason"] for each in told if each["id"] == str(heard.job.id)}
    assert others == {0: "good morning everyone", 1: "good evening", 2: "too late"}
