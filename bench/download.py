"""Throughput of the Downloader ÷ raw aiohttp that also hashes and writes the file: same server, same concurrency.

The server is another process, which sends files from its page cache. Both sides read 256 KiB at a time, take the
SHA-256 of what comes, write it to the same file system and delete it again. Every digest is checked.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import aiohttp

from bench.context import Cell, Context, Findings, Table
from bench.deployment import MeasureError
from bench.file_server import file_server
from v2td.config import FetchSettings, S3Settings
from v2td.fetch import Downloader

KEY = "download_ratio_aiohttp"
GOAL = 0.9
CHUNK_BYTES = 256 * 1024
CONCURRENCY = 16
SIZES = {"64 KiB": 1 << 16, "4 MiB": 1 << 22, "64 MiB": 1 << 26}  # the last one in a full run only
KEY_SIZE = "4 MiB"  # five minutes of MP3, half an hour of Opus

Fetch = Callable[[str], Awaitable[str]]  # downloads a URL and returns its SHA-256


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one round: bytes per second, CPU seconds of this process per 10^9 bytes."""

    bytes_per_second: float
    cpu_seconds_per_gb: float


async def measure(context: Context) -> Findings:
    """Answer with `download_ratio_aiohttp`, the median of the rounds' ratios at KEY_SIZE."""
    rounds = int(context.by_size(3, 5, 15))
    total = int(context.by_size(64, 192, 2048)) << 20
    served, spool = context.folder / "served", context.folder / "spool"
    served.mkdir()
    settings = FetchSettings(
        concurrency=CONCURRENCY, allowed_ports=(), allowed_networks=("127.0.0.0/8",), spool_dir=spool
    )
    rows: list[tuple[Cell, ...]] = []
    ratio = 0.0
    async with (
        file_server(served) as url,
        Downloader(settings, S3Settings()) as downloader,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), read_bufsize=CHUNK_BYTES) as session,
    ):
        for name, size in SIZES.items():
            if size > total // 4:
                continue
            digest = _make(served / str(size), size)
            count = max(CONCURRENCY, min(total // size, 1000))
            ways = {"v2td": _downloader(downloader), "aiohttp": _raw(session, spool)}
            costs: dict[str, list[Cost]] = {way: [] for way in ways}
            for number in range(rounds + 1):
                for way, fetch in ways.items():
                    cost = await _round(fetch, f"{url}/{size}", digest, count, size)
                    if number > 0:  # the first warms up
                        costs[way].append(cost)
            pairs = zip(costs["v2td"], costs["aiohttp"], strict=True)
            of_size = median(ours.bytes_per_second / raw.bytes_per_second for ours, raw in pairs)
            ratio = of_size if name == KEY_SIZE else ratio
            rows += [_row(name, way, each, of_size if way == "v2td" else 1) for way, each in costs.items()]
            context.say(f"{name}: {of_size:.2f} of raw aiohttp")
    table = Table(
        "Downloads",
        ("size", "how", "GB/s", "CPU s/GB", "ratio"),
        tuple(rows),
        f"{CONCURRENCY} at once; goal ≥ {GOAL} at {KEY_SIZE}. Medians of {rounds} rounds, interleaved.",
    )
    return Findings({KEY: ratio}, (table,))


def _row(size: str, way: str, costs: list[Cost], ratio: float) -> tuple[Cell, ...]:
    per_second = median(each.bytes_per_second for each in costs) / 1e9
    return size, way, round(per_second, 3), round(median(each.cpu_seconds_per_gb for each in costs), 2), round(ratio, 3)


def _make(path: Path, size: int) -> str:
    content = os.urandom(size)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _downloader(downloader: Downloader) -> Fetch:
    async def fetch(url: str) -> str:
        audio = await downloader.fetch(url)
        downloader.discard(audio)
        return audio.sha256

    return fetch


def _raw(session: aiohttp.ClientSession, folder: Path) -> Fetch:
    places = asyncio.Semaphore(CONCURRENCY)

    async def fetch(url: str) -> str:
        digest = hashlib.sha256()
        path = folder / os.urandom(8).hex()
        async with places, session.get(url) as response:
            with path.open("wb", buffering=0) as file:
                async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                    file.write(chunk)
                    digest.update(chunk)
        path.unlink()
        return digest.hexdigest()

    return fetch


async def _round(fetch: Fetch, url: str, digest: str, count: int, size: int) -> Cost:
    began, cpu = time.perf_counter(), time.process_time()
    digests = await asyncio.gather(*(fetch(url) for _ in range(count)))
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    if set(digests) != {digest}:
        raise MeasureError("a download is damaged")
    return Cost(count * size / seconds, cpu_seconds / (count * size / 1e9))
