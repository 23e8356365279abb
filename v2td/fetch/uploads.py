"""Uploads in one piece or, above a size, in parts side by side."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from v2td.errors import first_of

ABORT_SECONDS = 10.0
MAX_PARTS = 10_000  # S3's own limits
MIN_PART_BYTES = 5_242_880  # of all but the last


class Content(Protocol):
    """What goes up."""

    @property
    def size(self) -> int:
        """Bytes in all."""
        ...

    async def read(self, start: int, length: int) -> bytes | io.RawIOBase:
        """Return `length` bytes from `start` on, or a file of them."""
        ...


@dataclass(frozen=True, slots=True)
class InMemory:
    """Bytes that are there."""

    content: bytes

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self.content)

    async def read(self, start: int, length: int) -> bytes:
        """Return a copy of a part, or all of it as it is."""
        return self.content[start : start + length]


class OpenFile:
    """A file that is read as it goes up; a context manager. Entering raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = os.fstat(self._file).st_size
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    @property
    def size(self) -> int:
        """Bytes when it was opened."""
        return self._size

    async def read(self, start: int, length: int) -> io.RawIOBase:
        """Return `length` bytes from `start` on, to be read as they go up; OSError when the file has become shorter."""
        if os.fstat(self._file).st_size < start + length:
            raise OSError(f"{self._path} has changed while it was read")
        return _Piece(self._file, start, length)


class _Piece(io.RawIOBase):
    """A part of a file as a file of its own: four parts of 64 MiB in memory would be a quarter of a GB."""

    def __init__(self, file: int, start: int, length: int) -> None:
        self._file = file
        self._start = start
        self._length = length
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._length - self._position)
        count = os.preadv(self._file, [memoryview(buffer)[:wanted]], self._start + self._position)
        if count == 0 < wanted:
            raise OSError("the file has changed while it was read")
        self._position += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = base + offset
        return self._position


@dataclass(frozen=True, slots=True)
class Parts:
    """Contents of more than `bytes_each` go up in parts of that size, `at_once` of them together."""

    bytes_each: int
    at_once: int

    def of(self, size: int) -> list[tuple[int, int]]:
        """Return (start, length) of each part; they are longer than asked where there would be too many."""
        each = max(self.bytes_each, -(-size // MAX_PARTS))
        return [(start, min(each, size - start)) for start in range(0, size, each)]


async def put(client: Any, bucket: str, key: str, content: Content, parts: Parts, **headers: Any) -> None:
    """Store the content under a key, in place of what is there; `headers` are put_object's (ContentType, Metadata).

    Readers see all of it or what was there before. Raises what the client raises, alone also when several parts fail.
    Failed or cancelled, nothing is left at the server of an upload in parts, as far as the server can be told.
    """
    if content.size <= parts.bytes_each:
        await client.put_object(Bucket=bucket, Key=key, Body=await content.read(0, content.size), **headers)
        return
    begun = await client.create_multipart_upload(Bucket=bucket, Key=key, **headers)
    upload = {"Bucket": bucket, "Key": key, "UploadId": begun["UploadId"]}
    try:
        tags = await _sent(client, upload, content, parts)
        numbered = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, start=1)]
        await client.complete_multipart_upload(**upload, MultipartUpload={"Parts": numbered})
    except BaseException:  # a cancellation, too
        with contextlib.suppress(Exception):  # why it failed says more than that it could not be cleared away
            async with asyncio.timeout(ABORT_SECONDS):
                await client.abort_multipart_upload(**upload)
        raise


async def _sent(client: Any, upload: dict[str, str], content: Content, parts: Parts) -> list[str]:
    """Send all parts; return their tags in order."""
    places = asyncio.Semaphore(parts.at_once)

    async def send(number: int, start: int, length: int) -> str:
        async with places:
            body = await content.read(start, length)
            return str((await client.upload_part(**upload, PartNumber=number, Body=body))["ETag"])

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(send(number, start, length))
                for number, (start, length) in enumerate(parts.of(content.size), start=1)
            ]
    except ExceptionGroup as errors:
        raise first_of(errors) from None
    return [task.result() for task in tasks]
