"""What the page finds of a job that has no row yet: here, in Kafka, or with another instance."""

from __future__ import annotations

from typing import Any

from tests.desk.conftest import Office, ask, served
from v2td.inspection import Inspection
from v2td.jobs import Coordinates, Job

NOWHERE: Any = None
BODY = {"audio_url": "https://user:canary@example.com/a.wav?sig=canary", "id": "call"}


async def test_a_job_is_found_before_it_has_a_row(office: Office) -> None:
    inspection = Inspection(office.board, office.database, NOWHERE)
    assert await inspection.job("call") == []
    async with office.desk() as desk, served(desk) as session:
        _, submitted = await ask(session, "POST", "/v1/jobs", json=BODY)
        record = (await office.records())[0]
        place = (record.topic, record.partition, record.offset, record.timestamp)
        at = Coordinates(desk._submitting._producer.cluster_id, *place)
    for name in ("call", submitted["id"]):
        (waiting,) = await inspection.job(name)
        assert (str(waiting["id"]), waiting["state"]) == (submitted["id"], "queued_or_elsewhere")
        assert (waiting["kafka_partition"], waiting["kafka_offset"]) == place[1:3]
        assert "canary" not in str(waiting)
    trail = office.board.open(Job(at, BODY["audio_url"], job_id="call"))
    trail.rank(2)
    for name in ("call", submitted["id"]):
        (running,) = await inspection.job(name)
        assert (str(running["id"]), running["state"], running["priority"]) == (submitted["id"], "under_way", 2)
        assert "canary" not in str(running)
    other = Coordinates("another cluster", *place)
    office.board.open(Job(other, BODY["audio_url"], job_id="call"))
    assert {(each["id"], each["state"]) for each in await inspection.job("call")} == {
        (at.row_id(), "under_way"),
        (other.row_id(), "under_way"),
    }
