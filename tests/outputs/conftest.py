"""Transcripts to write, and a proxy before MinIO that can fail, hang and count."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import web
from pydantic import SecretStr
from yarl import URL

from tests.services.state import Services
from v2td.config import S3Settings
from v2td.jobs import Coordinates, Job, Output, Segment, Transcript, Word

Answer = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The daemon runs on uvloop."""
    return {"uvloop": uvloop.new_event_loop}


def transcript(
    *,
    url: str = "s3://calls/2026/Übergabe 1.wav",
    output: Output | None = None,
    segments: int = 2,
    timestamp_ms: int = 1_790_000_000_000,
    **job: Any,
) -> Transcript:
    """A transcript of `segments` sentences."""
    said = tuple(
        Segment(
            start=float(number),
            end=number + 0.9,
            text=f" Câu số {number}.",
            avg_logprob=-0.1,
            no_speech_prob=0.0,
            compression_ratio=1.0,
            temperature=0.0,
            words=(Word(float(number), number + 0.5, " Câu", 0.9),),
        )
        for number in range(segments)
    )
    at = Coordinates("cluster", "v2td-jobs", 3, 4711, timestamp_ms)
    return Transcript(
        job=Job(at, url, output=output, **job),
        audio_sha256="00",
        audio_bytes=1,
        audio_seconds=float(segments),
        speech_seconds=float(segments),
        covered_seconds=float(segments),
        language="vi",
        language_probability=1.0,
        segments=said,
        provider="local",
        model="demo",
        truncated=False,
        duration_seconds=1.0,
        timings={},
    )


def s3_settings(services: Services, **values: Any) -> S3Settings:
    return S3Settings(
        **{
            "endpoint_url": services.s3_endpoint,
            "region": services.s3_region,
            "access_key": services.s3_access_key,
            "secret_key": SecretStr(services.s3_secret_key),
        }
        | values
    )


@dataclass
class Proxy:
    """Hands requests on to MinIO as they came, host name included, so that signatures hold.

    `before` may answer in MinIO's place; `seen` are the requests as "METHOD query keys".
    """

    url: str = ""
    seen: list[str] = field(default_factory=list)
    before: Answer | None = None
    at_once: int = 0
    most_at_once: int = 0


@pytest.fixture
async def proxy(services: Services) -> AsyncIterator[Proxy]:
    found = Proxy()

    async def answer(request: web.Request) -> web.StreamResponse:
        found.seen.append(" ".join([request.method, *sorted(request.query)]))
        found.at_once += 1
        found.most_at_once = max(found.most_at_once, found.at_once)
        try:
            if found.before is not None and (answered := await found.before(request)) is not None:
                return answered
            body = io.BytesIO(await request.read())
            target = URL(services.s3_endpoint + request.raw_path, encoded=True)
            async with session.request(request.method, target, headers=request.headers, data=body) as response:
                kept = {k: v for k, v in response.headers.items() if k not in ("Transfer-Encoding", "Content-Length")}
                return web.Response(status=response.status, body=await response.read(), headers=kept)
        finally:
            found.at_once -= 1

    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", answer)
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)  # of those that hang
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield found
        await runner.cleanup()
