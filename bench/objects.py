"""Throughput of s3:// reads and writes ÷ raw aiohttp that also hashes and writes files: same MinIO, same concurrency.

Reads are the Downloader's, writes the ones of transcripts' files. Raw aiohttp has presigned URLs, one stream for each
object, files on the same disk, and takes the SHA-256 of all that comes or goes; v2td hashes what it reads, and has no
use for a hash of what it writes. Every digest of a read is checked, and what was written is read back at the end.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
from pydantic import SecretStr

from bench.context import Cell, Context, Findings, Table
from bench.deployment import MeasureError
from tests.services import minio
from v2td.config import FetchSettings, OutputSettings, S3Settings
from v2td.fetch import Downloader
from v2td.fetch.uploads import OpenFile, Parts, put

KEY = "objects_ratio_aiohttp"
GOAL = 0.9
CHUNK_BYTES = 256 * 1024
MIB = 1 << 20
PRESIGN_SECONDS = 3600

Move = Callable[[str, int], Awaitable[None]]  # reads or writes one of the objects of a load


@dataclass(frozen=True, slots=True)
class Load:
    """Objects of one size, `at_once` of them moved together."""

    name: str
    size_bytes: int
    count: int
    at_once: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one round: seconds by the clock and of this process's CPU time."""

    seconds: float
    cpu_seconds: float


class Objects:
    """A bucket with the same objects for each load, the file they were made of, and both ways to move them."""

    def __init__(self, bucket: str, folder: Path, downloader: Downloader, session: aiohttp.ClientSession) -> None:
        self._bucket = bucket
        self._folder = folder
        self._downloader = downloader
        self._session = session
        self._digests: dict[str, str] = {}

    async def make(self, load: Load) -> None:
        """Make the file of a load, and its objects of it."""
        path = self._path(load.name)
        path.write_bytes(os.urandom(load.size_bytes))
        with path.open("rb") as file:
            self._digests[load.name] = hashlib.file_digest(file, "sha256").hexdigest()
        (self._folder / "read").mkdir(exist_ok=True)
        for number in range(load.at_once):
            await self.write(load.name, number)

    async def read(self, name: str, number: int) -> None:
        """Read as the daemon reads a recording."""
        audio = await self._downloader.fetch(f"s3://{self._bucket}/{name}-{number}")
        self._downloader.discard(audio)
        self._compare(name, audio.sha256)

    async def write(self, name: str, number: int) -> None:
        """Write as the daemon writes a transcript's file."""
        settings = OutputSettings()
        with OpenFile(self._path(name)) as content:
            parts = Parts(settings.part_bytes, settings.parts)
            await put(await self._client(), self._bucket, f"{name}-{number}", content, parts)

    async def raw_read(self, name: str, number: int) -> None:
        """Read in one stream, hash, write a file and delete it."""
        digest = hashlib.sha256()
        path = self._folder / "read" / os.urandom(8).hex()
        async with self._session.get(await self._signed("get_object", f"{name}-{number}")) as response:
            response.raise_for_status()
            with path.open("wb", buffering=0) as file:
                async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                    file.write(chunk)
                    digest.update(chunk)
        path.unlink()
        self._compare(name, digest.hexdigest())

    async def raw_write(self, name: str, number: int) -> None:
        """Read the file, hash it, and write it in one stream."""
        digest = hashlib.sha256()
        path = self._path(name)

        async def body() -> AsyncIterator[bytes]:
            with path.open("rb", buffering=0) as file:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
                    yield chunk

        target = await self._signed("put_object", f"{name}-{number}")
        headers = {"Content-Length": str(path.stat().st_size)}
        async with self._session.put(target, data=body(), headers=headers) as response:
            response.raise_for_status()
        self._compare(name, digest.hexdigest())

    async def check(self, load: Load) -> None:
        """Raise MeasureError unless what was written last is all there."""
        for number in range(load.at_once):
            await self.read(load.name, number)

    def _path(self, name: str) -> Path:
        return self._folder / name

    def _compare(self, name: str, digest: str) -> None:
        if digest != self._digests[name]:
            raise MeasureError(f"{name} is damaged")

    async def _client(self) -> Any:
        return await self._downloader.store.client(self._bucket)

    async def _signed(self, operation: str, key: str) -> str:
        client = await self._client()
        params = {"Bucket": self._bucket, "Key": key}
        return str(await client.generate_presigned_url(operation, Params=params, ExpiresIn=PRESIGN_SECONDS))


async def measure(context: Context) -> Findings:
    """Answer with `objects_ratio_aiohttp`: all bytes read and written by their time, median of the rounds' ratios."""
    rounds = int(context.by_size(3, 5, 9))
    loads = (
        Load("small", 4 * MIB, int(context.by_size(16, 48, 256)), 16),
        Load("large", int(context.by_size(160, 256, 1024)) * MIB, 2, 2),
    )
    services = context.services
    s3 = S3Settings(
        endpoint_url=services.s3_endpoint,
        region=services.s3_region,
        access_key=services.s3_access_key,
        secret_key=SecretStr(services.s3_secret_key),
    )
    fetch = FetchSettings(spool_dir=context.folder / "spool")
    costs: dict[tuple[str, str, str], list[Cost]] = {}
    async with (
        minio.bucket(services, "bench") as bucket,
        Downloader(fetch, s3) as downloader,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), read_bufsize=CHUNK_BYTES) as session,
    ):
        objects = Objects(bucket, context.folder, downloader, session)
        ways: dict[tuple[str, str], Move] = {
            ("read", "v2td"): objects.read,
            ("read", "aiohttp"): objects.raw_read,
            ("write", "v2td"): objects.write,
            ("write", "aiohttp"): objects.raw_write,
        }
        kinds = tuple(ways)
        for load in loads:
            await objects.make(load)
            for number in range(rounds + 1):
                turn = number % len(ways)  # what MinIO still does for one lands on the next
                for what, how in (*kinds[turn:], *kinds[:turn]):
                    cost = await _round(ways[what, how], load)
                    if number > 0:  # the first warms up
                        costs.setdefault((load.name, what, how), []).append(cost)
            await objects.check(load)
    ratio = _ratio(costs, [(load.name, what) for load in loads for what in ("read", "write")])
    context.say(f"objects, reads and writes together: {ratio:.2f} of raw aiohttp")
    rows = tuple(_row(load, what, how, costs) for load in loads for what, how in ways)
    table = Table(
        "Objects",
        ("what", "size", "at once", "how", "GB/s", "CPU s/GB", "ratio"),
        rows,
        f"MinIO on the same machine, v2td in parts of 64 MiB, 4 at once. All together {ratio:.2f}, goal ≥ {GOAL}. "
        f"Medians of {rounds} rounds, interleaved.",
    )
    return Findings({KEY: ratio}, (table,))


async def _round(move: Move, load: Load) -> Cost:
    places = asyncio.Semaphore(load.at_once)

    async def one(number: int) -> None:
        async with places:
            await move(load.name, number % load.at_once)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*map(one, range(load.count)))
    return Cost(time.perf_counter() - began, time.process_time() - cpu)


def _ratio(costs: dict[tuple[str, str, str], list[Cost]], kinds: list[tuple[str, str]]) -> float:
    """Return raw aiohttp's seconds ÷ ours for the same bytes, of all kinds together: the median of the rounds."""

    def seconds(how: str) -> list[float]:
        return [sum(each.seconds for each in of) for of in zip(*(costs[*kind, how] for kind in kinds), strict=True)]

    return median(raw / ours for raw, ours in zip(seconds("aiohttp"), seconds("v2td"), strict=True))


def _row(load: Load, what: str, how: str, costs: dict[tuple[str, str, str], list[Cost]]) -> tuple[Cell, ...]:
    total = load.size_bytes * load.count / 1e9
    seconds = median(each.seconds for each in costs[load.name, what, how])
    cpu_seconds = median(each.cpu_seconds for each in costs[load.name, what, how])
    ratio = _ratio(costs, [(load.name, what)]) if how == "v2td" else 1
    size = f"{load.size_bytes // MIB} MiB"
    return what, size, load.at_once, how, round(total / seconds, 3), round(cpu_seconds / total, 2), round(ratio, 3)
