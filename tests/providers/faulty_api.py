"""A stand-in for OpenAI's API: a real server that decodes what it is sent, hears tones, and fails as it is told."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from tests.providers.tones import hear

KEY = "sk-a-key-that-nobody-may-ever-see"
Fault = Callable[[web.Request, "Asked"], Awaitable[web.StreamResponse | None]]


@dataclass
class Asked:
    """One request, as it came in."""

    path: str
    fields: dict[str, list[str]]
    filename: str
    content_type: str
    content: bytes
    headers: dict[str, str]
    port: int  # the client's: tells connections apart
    at: float  # time of the loop

    def field(self, name: str) -> str | None:
        values = self.fields.get(name)
        return None if values is None else values[0]


@dataclass
class API:
    """The server; request n suffers the nth of `faults`, those behind the last suffer none."""

    url: str = ""
    faults: list[Fault | None] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    language: str = "vietnamese"
    answer: Callable[[dict[str, Any]], Any] = lambda said: said
    seconds: float = 0.0  # each answer takes
    now: int = 0  # requests under way
    most: int = 0  # at once
    health: int = 200
    early: int | None = None  # status of an answer before anything of the file was read


@asynccontextmanager
async def serve(tls: ssl.SSLContext | None = None) -> AsyncIterator[API]:
    """Run the server on loopback until the block is left."""
    api = API()

    async def transcribe(request: web.Request) -> web.StreamResponse:
        if api.early is not None:
            refused = error(api.early, "Too large.")
            refused.force_close()
            return refused
        asked = await _take(request)
        api.asked.append(asked)
        fault = api.faults.pop(0) if api.faults else None
        api.now += 1
        api.most = max(api.most, api.now)
        try:
            await asyncio.sleep(api.seconds)
            if fault is not None and (answer := await fault(request, asked)) is not None:
                return answer
            return web.json_response(api.answer(await asyncio.to_thread(_heard, api, asked)))
        finally:
            api.now -= 1

    async def models(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return error(401, f"Incorrect API key provided: {KEY[:5]}…{KEY[-4:]}.")
        return web.json_response({"object": "list", "data": []}, status=api.health)

    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/v1/audio/{task}", transcribe)
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        host, port = runner.addresses[0][:2]
        api.url = f"http{'s' if tls else ''}://{host}:{port}/v1"
        yield api
    finally:
        await runner.cleanup()


async def _take(request: web.Request) -> Asked:
    fields: dict[str, list[str]] = {}
    name, kind, content = "", "", b""
    async for part in await request.multipart():
        assert isinstance(part, aiohttp.BodyPartReader)
        if part.name == "file":
            name, kind = part.filename or "", part.headers.get("Content-Type", "")
            content = bytes(await part.read())
        else:
            fields.setdefault(part.name or "", []).append(await part.text())
    peer = request.transport.get_extra_info("peername")[1] if request.transport else 0
    now = asyncio.get_running_loop().time()
    return Asked(request.path, fields, name, kind, content, dict(request.headers), peer, now)


def _heard(api: API, asked: Asked) -> dict[str, Any]:
    """Return what OpenAI would of the tones in a file."""
    tones, seconds = hear(asked.content)
    text = " ".join(tone.text for tone in tones)
    if asked.field("response_format") == "json":
        return {"text": text}
    said: dict[str, Any] = {
        "task": "transcribe",
        "language": "english" if asked.path.endswith("translations") else api.language,
        "duration": seconds,
        "text": text,
        "segments": [
            {
                "id": number,
                "seek": 0,
                "start": tone.start,
                "end": tone.end,
                "text": f" {tone.text}",
                "tokens": [1, 2],
                "temperature": 0.0,
                "avg_logprob": -0.25,
                "compression_ratio": 0.9,
                "no_speech_prob": 0.01,
            }
            for number, tone in enumerate(tones)
        ],
    }
    if "word" in asked.fields.get("timestamp_granularities[]", []):
        said["words"] = [{"word": tone.text, "start": tone.start, "end": tone.end} for tone in tones]
    return said


def error(status: int, message: str = "no", code: str | None = None, **headers: str) -> web.Response:
    """An error in OpenAI's shape."""
    content = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    return web.json_response(content, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})


def refuse(status: int, message: str = "no", code: str | None = None, **headers: str) -> Fault:
    """Answer with an error."""

    async def fault(_request: web.Request, _asked: Asked) -> web.StreamResponse:
        return error(status, message, code, **headers)

    return fault


async def hang(_request: web.Request, _asked: Asked) -> web.StreamResponse | None:
    """Never answer."""
    await asyncio.Event().wait()
    return None


async def half(request: web.Request, _asked: Asked) -> web.StreamResponse:
    """Promise more than is sent."""
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"text": "hal')
    assert request.transport is not None
    request.transport.close()
    return response


async def disconnect(request: web.Request, _asked: Asked) -> web.StreamResponse | None:
    """Close the connection without a word."""
    assert request.transport is not None
    request.transport.close()
    return None


def say(content: bytes | str, status: int = 200, kind: str = "application/json") -> Fault:
    """Answer with whatever this is."""

    async def fault(_request: web.Request, _asked: Asked) -> web.StreamResponse:
        body = content if isinstance(content, bytes) else content.encode()
        return web.Response(status=status, body=body, content_type=kind)

    return fault


async def endless(request: web.Request, _asked: Asked) -> web.StreamResponse:
    """Answer without an end, as fast as it goes."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * 1_000_000)
