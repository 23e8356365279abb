"""An upload arrives: its recording goes to the disk as it comes, its fields are kept in memory, which is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import TypeVar

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy

from v2td.admin.form import FILE, Form, known_name, parse
from v2td.admin.refusals import RefusedError
from v2td.admin.transcriptions import Receiving, Transcriber
from v2td.config import AdminSettings, ApiSettings
from v2td.jobs import Audio
from v2td.metrics import ADMIN_REJECTED

CHUNK_BYTES = 65_536
MAX_PARTS = 200  # there are a dozen fields, and lists
FORM = "multipart/form-data"

# RFC 7578: form-data; name="file"; filename="a call.wav"
PARAMETER = re.compile(r'\s*;\s*(?P<key>[\w*-]+)=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s";]+))', re.ASCII)
DISPOSITION = re.compile(rf"form-data({re.sub(r'[?]P<[a-z]+>', '', PARAMETER.pattern)})+\s*;?\s*", re.ASCII)

_T = TypeVar("_T")


class _Parts(MultipartReader):
    """aiohttp's, but that it takes no part whose head it would have to guess at, and warn of in a log of its own."""

    async def fetch_next_part(self) -> MultipartReader | BodyPartReader:
        """Return the next part; its Content-Disposition says `name` and no more. Raises RefusedError."""
        part = await super().fetch_next_part()
        name = _name_of(part.headers.get("Content-Disposition", ""))
        if name is None or not isinstance(part, BodyPartReader):
            raise RefusedError(400, "each part is a field with a name", code="malformed")
        known = FILE if name == FILE else known_name(name)
        part.headers = CIMultiDictProxy(CIMultiDict({"Content-Disposition": f'form-data; name="{known}"'}))
        return part


class Uploads:
    """Receives uploads, into files that the transcriber gives."""

    def __init__(self, transcriber: Transcriber, api: ApiSettings, admin: AdminSettings) -> None:
        self._transcriber = transcriber
        self._api = api
        self._admin = admin

    @contextlib.asynccontextmanager
    async def received(self, request: web.Request) -> AsyncIterator[tuple[Audio, Form]]:
        """Yield a request's recording, and what is wanted of it; the file is gone afterwards.

        Raises RefusedError, and what the disk says: NoRoomError, JobError, ServiceError.
        """
        with self._transcriber.receive() as file:
            form = await self._receive(request, file)
        audio = Audio(file.path, file.size_bytes, file.sha256, temporary=True)
        try:
            yield audio, form
        finally:
            self._transcriber.discard(audio)

    async def _receive(self, request: web.Request, file: Receiving) -> Form:
        if request.content_type != FORM:
            raise RefusedError(415, f"send it as {FORM}", code="unsupported_media_type")
        if (request.content_length or 0) > self._api.max_bytes + self._admin.max_body_bytes:
            raise self._too_large()
        with _as_refusals():
            await _invite(request)
        return parse(await self._read(request, file))

    async def _read(self, request: web.Request, file: Receiving) -> dict[str, list[str]]:
        """Return the fields; the recording goes into the file."""
        fields: dict[str, list[str]] = {}
        found, room = False, self._admin.max_body_bytes
        with _as_refusals():
            reader = _Parts(request.headers, request.content)
        for _ in range(MAX_PARTS + 1):
            part = await self._in_time(reader.next())
            if part is None:
                if not found:
                    raise RefusedError(400, "file: is missing", code="missing_required_parameter", param=FILE)
                return fields
            assert isinstance(part, BodyPartReader)
            assert part.name is not None
            if part.name == FILE:
                if found:
                    raise RefusedError(400, "file: is there twice", code="invalid_value", param=FILE)
                found = True
                await self._read_file(part, file)
                continue
            value = await self._read_value(part, room)
            room -= len(value)
            fields.setdefault(part.name, []).append(_text(part.name, value))
        raise RefusedError(400, f"more than {MAX_PARTS} fields", code="malformed")

    async def _read_file(self, part: BodyPartReader, file: Receiving) -> None:
        while chunk := await self._in_time(part.read_chunk(CHUNK_BYTES)):
            if file.size_bytes + len(chunk) > self._api.max_bytes:
                raise self._too_large()
            file.write(chunk)

    async def _read_value(self, part: BodyPartReader, room: int) -> bytes:
        value = b""
        while chunk := await self._in_time(part.read_chunk(CHUNK_BYTES)):
            value += chunk
            if len(value) > room:
                ADMIN_REJECTED.labels("body").inc()
                message = f"fields of more than {self._admin.max_body_bytes} bytes in all (admin.max_body_bytes)"
                raise RefusedError(413, message, code="too_large")
        return value

    async def _in_time(self, reading: Awaitable[_T]) -> _T:
        """Return what comes next; who sends nothing for so long holds a place and a file for nothing."""
        try:
            async with asyncio.timeout(self._admin.request_seconds) as silence:
                with _as_refusals():
                    return await reading
        except TimeoutError:
            if not silence.expired():
                raise
            ADMIN_REJECTED.labels("slow").inc()
            message = "nothing of the body came for admin.request_seconds"
            raise RefusedError(408, message, code="timeout") from None

    def _too_large(self) -> RefusedError:
        ADMIN_REJECTED.labels("body").inc()
        message = f"file: larger than {self._api.max_bytes} bytes (api.max_bytes)"
        return RefusedError(413, message, code="too_large", param=FILE)


async def _invite(request: web.Request) -> None:
    """Tell a client that waits for it to send its body."""
    expected = request.headers.get("Expect")
    if expected is None or request.version < (1, 1):
        return
    if expected.lower() != "100-continue":
        raise RefusedError(417, "Expect: takes 100-continue only", code="expectation_failed")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # the answer has not begun


@contextlib.contextmanager
def _as_refusals() -> Iterator[None]:
    """Turn what aiohttp says of a body that is no form into a refusal; a client that went away is cancelled anyway."""
    try:
        yield
    except (ValueError, LookupError, AssertionError, RuntimeError, HttpProcessingError):
        ADMIN_REJECTED.labels("malformed").inc()
        raise RefusedError(400, f"the body is not valid {FORM}", code="malformed") from None
    except (web.RequestPayloadError, ConnectionError):
        ADMIN_REJECTED.labels("malformed").inc()
        raise RefusedError(400, "the body is not as announced", code="malformed") from None


def _name_of(disposition: str) -> str | None:
    """Return a field's name; None when it is none of a form's."""
    if not DISPOSITION.fullmatch(disposition):
        return None
    names = [each["quoted"] or each["plain"] for each in PARAMETER.finditer(disposition) if each["key"] == "name"]
    return names[0] if len(names) == 1 else None


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise RefusedError(400, f"{name}: is not UTF-8", code="invalid_value", param=name) from None
