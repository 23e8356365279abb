"""Asks the transcription API over raw HTTP, with forms that a test writes byte by byte."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.admin.serving import BEARER, Daemon
from tests.admin.speaking import Told, api
from v2td.metrics import API_REQUESTS

PATH = "/v1/audio/transcriptions"
HEADERS = {**BEARER, "Content-Type": "multipart/form-data; boundary=frontier"}
FILE = b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nsound\r\n'
END = b"--frontier--\r\n"


def field(name: str, value: str) -> bytes:
    """A part of a form."""
    return f'--frontier\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


def head(length: int, more: bytes = b"") -> bytes:
    """The head of a request, whose body is so long."""
    lines = (f"POST {PATH} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in HEADERS.items()))
    return "\r\n".join((*lines, f"Content-Length: {length}", "")).encode() + more + b"\r\n"


@asynccontextmanager
async def asking(
    told: Told, admin: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve the API; a client of it."""
    async with api(Daemon(transcriber=told), admin, **settings) as url, aiohttp.ClientSession(url) as session:
        yield session


async def answer_of(session: aiohttp.ClientSession, body: bytes = FILE + END, url: str = "") -> tuple[int, str]:
    """Status and text of the answer to a form."""
    async with session.post(url + PATH, data=body, headers=HEADERS) as answer:
        return answer.status, await answer.text()


def counted(result: str) -> float:
    """What the counter of requests says."""
    return float(API_REQUESTS.labels(result)._value.get())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another task or process makes true without an event."""
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.01)
