"""Lists: every page behind the one before, whatever comes in meanwhile, and nothing that takes long."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import aiohttp
import pytest
from yarl import URL

from tests.desk.conftest import Office, ask, filled, served
from v2td.store import lists

MANY = """
INSERT INTO transcriptions (id, job_id, cluster_id, topic, kafka_partition, kafka_offset, record_index, audio_url,
    audio_sha256, options_sha256, audio_bytes, audio_seconds, speech_seconds, language, task, provider, model, text,
    duration, timings, truncated, metadata, created_at)
SELECT gen_random_uuid(), 'job-' || n, 'c', CASE WHEN n % 50 = 0 THEN 'rare' ELSE 'jobs' END, 0, n, 0, 'https://e',
    '', '', 1, 1, 1, CASE WHEN n % 2 = 0 THEN 'en' ELSE 'vi' END, 'transcribe', 'local', 'demo', repeat('word ', 300),
    1, '{}', false, '{}', $1::timestamptz + n / 10 * interval '1 second'  -- ten at a time, as one flush writes them
FROM generate_series(1, $2::int) n
"""
FAILED = """
INSERT INTO failures (id, cluster_id, topic, kafka_partition, kafka_offset, record_index, error_class, reason, attempts,
    headers, created_at, replay_state)
SELECT gen_random_uuid(), 'c', 'jobs', 0, n, 0, CASE WHEN n % 5 = 0 THEN 'cancelled' ELSE 'not_audio' END, 'r', 1, '[]',
    $1::timestamptz + n * interval '3 seconds', CASE WHEN n % 7 = 0 THEN 'requested' END
FROM generate_series(1, $2::int) n
"""
BEGAN = datetime(2026, 5, 1, tzinfo=UTC)


async def pages(session: aiohttp.ClientSession, path: str, query: dict[str, str]) -> list[list[dict[str, Any]]]:
    """All pages of a list."""
    found: list[list[dict[str, Any]]] = []
    cursor: dict[str, str] = {}
    while True:
        status, page = await ask(session, "GET", path, params={**query, **cursor})
        assert status == 200, page
        found.append(page["data"])
        if page["next"] is None:
            return found
        cursor = {"cursor": page["next"]}


async def test_pages_have_everything_once_in_order(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    await office.sql(MANY, BEGAN, 300)
    await office.sql(FAILED, BEGAN, 40)
    async with office.desk() as desk, served(desk) as session:
        for scanned in (25, lists.SCANNED):  # pages that are cut short, too
            monkeypatch.setattr(lists, "SCANNED", scanned)
            rows = [row for page in await pages(session, "/v1/jobs", {"limit": "37"}) for row in page]
            assert len(rows) == len({row["id"] for row in rows}) == 340
            assert [row["ended_at"] for row in rows] == sorted((row["ended_at"] for row in rows), reverse=True)
            for query, count in (
                ({"state": "transcribed"}, 300),
                ({"state": "failed"}, 28),
                ({"state": "cancelled"}, 7),
                ({"state": "retrying"}, 5),
                ({"state": "dropped"}, 0),
                ({"class": "cancelled"}, 8),
                ({"topic": "rare"}, 6),
                ({"topic": "rare", "state": "failed"}, 0),
                ({"since": _text(BEGAN + timedelta(seconds=20)), "until": _text(BEGAN + timedelta(seconds=21))}, 10),
            ):
                found = await pages(session, "/v1/jobs", query)
                assert sum(map(len, found)) == count, (scanned, query)
            spoken = [row for page in await pages(session, "/v1/transcripts", {"language": "vi"}) for row in page]
            assert len(spoken) == 150
            assert {len(row["beginning"]) for row in spoken} == {lists.BEGINNING}
        _, first = await ask(session, "GET", "/v1/jobs", params={"limit": "100"})
        await office.sql(MANY, datetime.now(UTC), 30)  # while somebody leafs through
        _, second = await ask(session, "GET", "/v1/jobs", params={"limit": "500", "cursor": first["next"]})
        assert len({row["id"] for row in first["data"] + second["data"]}) == 340


async def test_a_job_that_was_done_again_is_there_once(office: Office) -> None:
    (job, *_), _ = await filled(office)
    await office.sql(
        """
        DO $$ BEGIN
            CREATE TEMP TABLE again AS SELECT * FROM transcriptions;
            UPDATE again SET revision = 1, language = 'vi', created_at = now();
            INSERT INTO transcriptions SELECT * FROM again;
        END $$
        """
    )
    async with office.desk() as desk, served(desk) as session:
        _, page = await ask(session, "GET", "/v1/transcripts")
        assert {row["revision"] for row in page["data"]} == {1}
        assert len(page["data"]) == 5
        assert (await ask(session, "GET", f"/v1/jobs/{job}"))[1]["heard"]["revision"] == 1
        for revision, status in (("0", 200), ("1", 200), ("2", 404)):
            async with session.get(f"/v1/transcripts/{job}", params={"format": "txt", "revision": revision}) as answer:
                assert answer.status == status


def _cursor(time: str) -> str:
    """A cursor as lists make them."""
    return base64.urlsafe_b64encode(f"{time} {uuid4()}".encode()).decode().rstrip("=")


QUERIES = (
    "limit=0", "limit=501", "limit=-1", "limit=1e2", "limit=" + "9" * 400, "limit=%D9%A1", "limit=1&limit=2", "limit=",
    "cursor=", "cursor=%00", "cursor=abc", "cursor=" + "A" * 5000, "cursor=%ED%A0%80", "cursor=4pyT",
    f"cursor={_cursor('0001-01-01T00:00:00+23:59')}", f"cursor={_cursor('2030-01-01T00:00:00')}",
    "state=running", "state=%00", "class=none", "topic=%00", "topic=" + "t" * 2000,
    "since=yesterday", "since=2030-01-01", "since=2030-01-01T00:00:00", "until=2030-01-01T00:00:00+07:00",
    "until=9999-12-31T23:59:59-12:00", "since=0001-01-01T00:00:00%2B12:00", "unknown=1", "%00=1", "=", "Limit=1",
)  # fmt: skip
IDS = ("unknown", "%00", "call%00", "%ED%A0%80", "%FF", "..", "%2F", "x" * 300, quote("'; DROP TABLE x"), str(uuid4()))


async def test_hostile_questions_are_refused(office: Office) -> None:
    await filled(office)
    async with office.desk() as desk, served(desk, requests_per_second=1000) as session:
        base = str(session._base_url).rstrip("/")
        for path in ("/v1/jobs", "/v1/transcripts", "/v1/audit"):
            for query in QUERIES:
                status, problem = await _raw(session, "GET", f"{base}{path}?{query}")
                assert (status, problem["status"]) == (400, 400), (path, query)
                if path == "/v1/transcripts":
                    status, problem = await _raw(session, "GET", f"{base}{path}?query=word&{query}")
                    assert (status, problem["status"]) == (400, 400), query
        for named in IDS:
            for method, path in (
                ("GET", ""), ("DELETE", ""), ("PATCH", ""), ("POST", "/replay"), ("GET", "/events"),
            ):  # fmt: skip
                status, problem = await _raw(session, method, f"{base}/v1/jobs/{named}{path}")
                assert status == problem["status"] == (422 if method == "PATCH" and status == 422 else 404), named
            assert (await _raw(session, "GET", f"{base}/v1/transcripts/{named}"))[0] == 404
        for body in (b"{", b"[]", b'{"priority": "1"}', b'{"priority": 1.5}', b'{"priority": -1}', b"{}", b"null"):
            assert (await ask(session, "PATCH", "/v1/jobs/job-0", data=body))[0] in {400, 422}, body
        for body in (b'{"instance": ""}', b'{"instance": "\\u0000"}', b'{"all": true}', b'{"instance": 1}'):
            assert (await ask(session, "POST", "/v1/intake/pause", data=body))[0] == 422, body
        for query in ("format=exe", "format=..%2F", "revision=x", "revision=" + "9" * 20, "format=srt&format=vtt"):
            assert (await _raw(session, "GET", f"{base}/v1/transcripts/job-0?{query}"))[0] == 400


async def _raw(session: aiohttp.ClientSession, method: str, url: str) -> tuple[int, Any]:
    """Ask for a URL that is not put in order before."""
    return await ask(session, method, URL(url, encoded=True))  # type: ignore[arg-type]


async def test_a_job_may_be_called_anything(office: Office) -> None:
    await filled(office)
    async with office.desk() as desk, served(desk) as session:
        base = str(session._base_url).rstrip("/")
        for name in ("{id}", "a/b", "a?b#c", "a%2Fb", "<b>", "Gespräch 1"):
            await office.sql("UPDATE transcriptions SET job_id = $1 WHERE kafka_offset = 0", name)
            status, found = await _raw(session, "GET", f"{base}/v1/jobs/{quote(name, safe='')}")
            assert (status, found["job_id"]) == (200, name)


async def test_a_job_that_is_being_done_again_elsewhere_is_reached(office: Office) -> None:
    (job, *_), _ = await filled(office)
    async with office.desk() as desk, served(desk) as session:
        assert (await ask(session, "DELETE", f"/v1/jobs/{job}"))[0] == 409
        await office.sql("INSERT INTO redos (id, revision, record_sha256) VALUES ($1, 1, '')", job)
        assert (await ask(session, "PATCH", f"/v1/jobs/{job}", json={"priority": 1}))[0] == 202
        assert (await ask(session, "DELETE", f"/v1/jobs/{job}"))[0] == 202
        given = await office.sql("SELECT command FROM job_commands WHERE job = $1 AND done_at IS NULL", job)
        assert {row["command"] for row in given} == {"cancel", "priority"}


async def test_several_jobs_of_one_name_are_named(office: Office) -> None:
    await filled(office)
    await office.sql("UPDATE failures SET job_id = 'call'")
    async with office.desk() as desk, served(desk) as session:
        status, problem = await ask(session, "GET", "/v1/jobs/call")
        assert status == 409
        assert "5 jobs are called so" in problem["detail"]


def _text(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")
