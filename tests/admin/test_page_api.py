"""The page's files and its streams, without a browser: what they say, who may have them, how many at once."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from tests.admin.serving import BEARER, EXPOSED, TOKEN, Daemon
from v2td.admin import PageApi, Unplayable, serve
from v2td.admin.page_api import MAX_RECORDINGS, MAX_STREAMS, sniffed
from v2td.config import AdminSettings
from v2td.errors import ServiceError

FILES = Path(__file__).parents[2] / "v2td" / "admin" / "page"
# What turns strings into documents, programs or styles; and addresses of others.
SINKS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|srcdoc|\beval\b|"
    r"new Function|setTimeout\(['\"`]|javascript:|\.style\b|style=|\bon[a-z]+=|https?://(?!www\.w3\.org/2000/svg)"
)
JOB = "0191d6a4-0000-7000-8000-000000000000"


class Told:
    """Numbers, jobs and recordings that a test chooses."""

    def __init__(self, folder: Path) -> None:
        self.number = 1
        self.told: dict[str, Any] = {"n": 1}
        self.path = folder / "recording"
        self.path.write_bytes(b"OggS" + bytes(1000))
        self.unplayable: Unplayable | None = None
        self.away = False
        self.served: PageApi | None = None
        self.go = asyncio.Event()
        self.go.set()

    def history(self) -> dict[str, Any]:
        return {"fields": ["at"], "points": [[1]]}

    async def after(self, number: int) -> int:
        while self.number <= number:
            await asyncio.sleep(0.01)
        return self.number

    async def job(self, job: str) -> list[dict[str, Any]]:
        if self.away:
            raise ServiceError("look up a job", "the password is wrong: hunter2")
        return [{"id": job}] if job == JOB or "{" in job else []

    async def failures(self) -> dict[str, Any]:
        return {"looked_at": 0, "classes": []}

    @asynccontextmanager
    async def recording(self, job: UUID) -> AsyncIterator[Path]:
        assert str(job) == JOB
        await self.go.wait()
        if self.unplayable is not None:
            raise self.unplayable
        yield self.path


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


@asynccontextmanager
async def page(told: Told, **settings: Any) -> AsyncIterator[aiohttp.ClientSession]:
    admin = AdminSettings(**{"port": 0, "token": TOKEN, **settings})
    told.served = PageApi(told, told, admin)
    async with (
        serve(admin, Daemon().view(), [told.served]) as url,
        aiohttp.ClientSession(url.replace("0.0.0.0", "127.0.0.1")) as session,
    ):
        yield session


async def test_its_files_are_open_and_may_do_little(told: Told) -> None:
    async with page(told, **EXPOSED) as session:
        for path, kind in {"/": "text/html", "/page/app.js": "text/javascript", "/page/page.css": "text/css"}.items():
            async with session.get(path) as answer:
                assert (answer.status, answer.content_type) == (200, kind)
                policy = answer.headers.getall("Content-Security-Policy")
                assert len(policy) == 1
                assert "'unsafe" not in policy[0]
                assert policy[0].startswith("default-src 'none'; script-src 'self'")
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Referrer-Policy"] == "no-referrer"
        for path in ("/page/none.js", "/page/..%2froutes.py", "/page/%2e%2e/routes.py", "/page/__init__.py"):
            async with session.get(path) as answer:
                assert answer.status == 404
        for path in ("/page/events", f"/page/job?id={JOB}", f"/page/jobs/{JOB}/audio", "/page/failures"):
            async with session.get(path) as answer:
                assert answer.status == 401
        async with session.get("/status", headers=BEARER) as answer:
            assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"


async def test_every_file_is_named_by_another_and_makes_no_html() -> None:
    found = {path.name: path.read_text() for path in FILES.iterdir()}
    named = set(re.findall(r'/page/([a-z]+\.[a-z]+)"', "".join(found.values())))
    assert named | {"index.html"} == set(found)
    for name, text in found.items():
        assert len(text.splitlines()) < 300, name
        assert SINKS.findall(text) == [], name


async def test_streams_are_few_and_end(told: Told) -> None:
    async with page(told) as session:
        streams = [await session.get("/page/events") for _ in range(MAX_STREAMS)]
        async with session.get("/page/events") as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (503, "10")
        first = streams[0].content
        assert await first.readuntil(b"\n\n") == b'event: history\ndata: {"fields": ["at"], "points": [[1]]}\n\n'
        assert await first.readuntil(b"\n\n") == b'event: sample\ndata: {"n": 1}\n\n'
        told.told, told.number = {"n": 2}, 2
        assert json.loads((await first.readuntil(b"\n\n")).partition(b"data: ")[2]) == {"n": 2}
        for stream in streams[1:]:
            stream.close()
        told.number = 3  # whoever is gone is noticed with the next sample
        async with asyncio.timeout(20):
            while (again := await session.get("/page/events")).status == 503:
                await asyncio.sleep(0.05)
        again.close()
        assert told.served is not None
        told.served.stop()
        assert (await asyncio.wait_for(first.read(), 20)).endswith(b'data: {"n": 2}\n\n')


async def test_jobs_by_any_name(told: Told) -> None:
    async with page(told, token=TOKEN) as session:
        for name in (JOB, "{{7*7}}/../%2f"):
            async with session.get("/page/job", params={"id": name}, headers=BEARER) as answer:
                assert await answer.json() == {"jobs": [{"id": name}]}
        async with session.get("/page/job", headers=BEARER) as answer:
            assert answer.status == 404
        told.away = True
        async with session.get("/page/job", params={"id": JOB}, headers=BEARER) as answer:
            assert answer.status == 503
            assert "hunter2" not in await answer.text()


async def test_recordings(told: Told) -> None:
    async with page(told) as session:
        path = f"/page/jobs/{JOB}/audio"
        async with session.get(path, headers=BEARER) as answer:
            assert (answer.status, answer.content_type) == (200, "audio/ogg")
            assert answer.headers["Content-Security-Policy"].startswith("sandbox")
            assert await answer.read() == told.path.read_bytes()
        async with session.get(path, headers={**BEARER, "Range": "bytes=2-5"}) as answer:
            assert (answer.status, await answer.read()) == (206, b"gS\0\0")
        told.path.write_bytes(b"<html><script>alert(1)</script>")
        async with session.get(path, headers=BEARER) as answer:
            assert answer.status == 415
        told.unplayable = Unplayable(413, "too long")
        async with session.get(path, headers=BEARER) as answer:
            assert (answer.status, (await answer.json())["detail"]) == (413, "too long")
        async with session.get("/page/jobs/7/audio", headers=BEARER) as answer:
            assert answer.status == 404
        told.go.clear()
        asked = [asyncio.ensure_future(session.get(path, headers=BEARER)) for _ in range(MAX_RECORDINGS + 1)]
        (refused,), waiting = await asyncio.wait(asked, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert refused.result().status == 503
        told.go.set()
        assert {answer.status for answer in await asyncio.gather(*waiting)} == {413}


@pytest.mark.parametrize(
    ("beginning", "kind"),
    [
        (b"RIFF\0\0\0\0WAVEfmt ", "audio/wav"),
        (b"RIFF\0\0\0\0AVI ", None),
        (b"OggS", "audio/ogg"),
        (b"fLaC", "audio/flac"),
        (b"ID3\x04", "audio/mpeg"),
        (b"\xff\xfb\x90", "audio/mpeg"),
        (b"\xff\xf1\x50", "audio/aac"),
        (b"\0\0\0 ftypM4A ", "audio/mp4"),
        (b"\x1a\x45\xdf\xa3", "audio/webm"),
        (b"<svg onload=", None),
        (b"", None),
    ],
)
def test_types_are_sniffed(beginning: bytes, kind: str | None) -> None:
    assert sniffed(beginning) == kind
