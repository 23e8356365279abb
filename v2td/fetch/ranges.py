"""Large objects of an object store, read in parts, several at once.

Parts come in any order, and SHA-256 wants the bytes in theirs. What comes next in order is hashed as it comes, so an
object of one part costs what it costs in one stream; the rest a thread reads from the file once all before it is there,
from the page cache, where it lies a moment after it was written.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from random import Random

import aiohttp
from aiohttp import hdrs
from yarl import URL

from v2td.config import FetchSettings, S3Settings
from v2td.errors import ErrorClass, TransientJobError, first_of
from v2td.fetch.faults import as_job_errors
from v2td.fetch.hosts import Access
from v2td.fetch.spool import Incoming, Spool
from v2td.fetch.transfer import Transfer
from v2td.fetch.validators import Validator
from v2td.retry import Backoff

ATTEMPTS = 3  # for each part
DIGEST_BYTES = 4 * 1024 * 1024  # handed to the thread at once: a hop costs as much as hashing 100 KB

_BACKOFF = Backoff(initial=0.5, maximum=10.0)
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_STRONG_ETAG = re.compile(r'"[^"]+"')


class _ChangedError(TransientJobError):
    """Parts of two objects do not make one: all has to be read again."""

    def __init__(self, reason: str) -> None:
        super().__init__(ErrorClass.HTTP_ERROR, reason)
        self.args = (reason,)


@dataclass(slots=True)
class _Parts:
    """An object as its first answer described it, and what has come of each of its parts."""

    target: URL
    access: Access
    etag: str
    size_bytes: int
    part_bytes: int
    received: list[int] = field(init=False)
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    thread_digests: bool = False

    def __post_init__(self) -> None:
        self.received = [0] * -(-self.size_bytes // self.part_bytes)

    def bounds(self, number: int) -> tuple[int, int]:
        start = number * self.part_bytes
        return start, min(start + self.part_bytes, self.size_bytes)

    def complete_bytes(self) -> int:
        """Return how many bytes there are from the object's start on without a gap."""
        for number, received in enumerate(self.received):
            start, end = self.bounds(number)
            if start + received < end:
                return start + received
        return self.size_bytes


class RangedTransfer(Transfer):
    """Downloads from object stores: they redirect nowhere, and send parts of objects."""

    def __init__(self, session: aiohttp.ClientSession, spool: Spool, settings: FetchSettings, s3: S3Settings) -> None:
        super().__init__(session, spool, settings, max_redirects=0)
        self._part_bytes = s3.part_bytes
        self._parts = s3.parts
        self._random = Random()  # noqa: S311 (jitter)

    async def _download(
        self, target: URL, access: Access, known: Validator | None, incoming: Incoming
    ) -> Validator | None:
        if self._parts == 1:
            return await super()._download(target, access, known, incoming)
        # The first part is asked for without knowing whether there are more: small objects need one request.
        condition = known.condition(target) if known else {}
        wanted: dict[str, str] = {hdrs.RANGE: f"bytes=0-{self._part_bytes - 1}", **condition}
        async with self._answer(target, access, wanted) as response:
            if response.status not in {206, 416}:
                await self._receive(response, incoming, conditional=bool(condition))
                return Validator.of(response.headers, target)
            etag, found = response.headers.get(hdrs.ETAG, ""), _content_range(response)
            if response.status == 206 and found is not None and _STRONG_ETAG.fullmatch(etag):
                self._check_size(found[2])
                parts = _Parts(target, access, etag, found[2], self._part_bytes)
                await self._receive_parts(parts, response, incoming)
                return Validator.of(response.headers, target)
        # An empty object has no first byte to ask for; or nothing says whether two parts belong together.
        return await super()._download(target, access, known, incoming)

    async def _receive_parts(self, parts: _Parts, first: aiohttp.ClientResponse, incoming: Incoming) -> None:
        numbers = iter(range(len(parts.received)))
        opened = {0: first}

        async def work() -> None:
            for number in numbers:
                await self._part(parts, number, opened.pop(number, None), incoming)

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_digest(parts, incoming))
                for _ in range(min(self._parts, len(parts.received))):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            raise first_of(errors) from None

    async def _part(
        self, parts: _Parts, number: int, opened: aiohttp.ClientResponse | None, incoming: Incoming
    ) -> None:
        """Receive a part; another attempt goes on where the one before ended."""
        failures = 0
        while True:
            try:
                with as_job_errors():
                    if opened is None:
                        async with self._answer_part(parts, number) as response:
                            await self._take(parts, number, response, incoming)
                    else:
                        await self._take(parts, number, opened, incoming)
            except _ChangedError:
                raise
            except TransientJobError as error:
                failures += 1
                if failures == ATTEMPTS:
                    raise
                opened = None
                pause = _BACKOFF.pause(failures, self._random, error.retry_after)
            else:
                return
            await asyncio.sleep(pause)

    def _answer_part(self, parts: _Parts, number: int) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        start, end = parts.bounds(number)
        wanted: dict[str, str] = {
            hdrs.RANGE: f"bytes={start + parts.received[number]}-{end - 1}",
            hdrs.IF_MATCH: parts.etag,
        }
        return self._answer(parts.target, parts.access, wanted)

    async def _take(self, parts: _Parts, number: int, response: aiohttp.ClientResponse, incoming: Incoming) -> None:
        start, end = parts.bounds(number)
        if response.status == 412:
            raise _ChangedError("the object changed while it was read")
        if response.status not in {200, 206}:
            raise await self._refusal(response)
        described = (_content_range(response), response.headers.get(hdrs.ETAG))
        if described != ((start + parts.received[number], end, parts.size_bytes), parts.etag):
            raise _ChangedError("the object changed while it was read, or the server sent other bytes than asked for")

        def take(chunk: bytes) -> None:
            position = start + parts.received[number]
            if position + len(chunk) > end:
                raise _ChangedError("the server sent more bytes than it said")
            in_order = position == incoming.digested_bytes and not parts.thread_digests
            incoming.write_at(chunk, position, digest=in_order)
            parts.received[number] += len(chunk)
            parts.grown.set()

        await self._receive_body(response.content, take)
        if start + parts.received[number] < end:
            raise TransientJobError(ErrorClass.HTTP_ERROR, "the body ended early or is damaged")


async def _digest(parts: _Parts, incoming: Incoming) -> None:
    """Follow the parts until all is hashed. A cancellation leaves the thread to finish what it has."""
    while incoming.digested_bytes < parts.size_bytes:
        await parts.grown.wait()
        parts.grown.clear()
        complete = parts.complete_bytes()
        behind = complete - incoming.digested_bytes
        if behind >= DIGEST_BYTES or (behind and complete == parts.size_bytes):
            parts.thread_digests = True
            await asyncio.to_thread(incoming.digest_up_to, complete)
            parts.thread_digests = False


def _content_range(response: aiohttp.ClientResponse) -> tuple[int, int, int] | None:
    """Return start, end (exclusive) and the object's size that a 206 names; None when it does not make sense."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get(hdrs.CONTENT_RANGE, ""))
    if match is None:
        return None
    start, last, size = map(int, match.groups())
    return (start, last + 1, size) if start <= last < size else None
