"""`v2td debug bundle`: what a bug report needs, in one archive, without secrets and without what was said."""

from __future__ import annotations

import asyncio
import io
import json
import os
import platform
import tarfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import psutil

from v2td import __version__, store
from v2td.config import LoadedConfig, Settings, redacted
from v2td.machine import read_machine
from v2td.ops import check
from v2td.ops.bundle_redaction import Redaction
from v2td.ops.host import recommendations
from v2td.ops.top_admin import AdminSource
from v2td.ops.top_kafka import KafkaSource

PART_SECONDS = 60.0
JOURNAL_LINES = 2000
UNITS = "v2td*"
NOT_CHECKED = frozenset({"model"})  # it would load another copy, perhaps into the memory that is short
ADMIN = {
    "status.json": "/status",
    "metrics.txt": "/metrics",
    "tasks.json": "/debug/tasks",
    "slots.json": "/debug/slots",
    "loop.json": "/debug/loop",
}

_SIZES = """
SELECT relname AS name, reltuples::bigint AS rows_estimated, pg_total_relation_size(oid) AS bytes FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') ORDER BY relname
"""
_FAILURES = """
SELECT error_class, count(*) AS failures FROM failures WHERE created_at > now() - interval '1 day'
GROUP BY error_class ORDER BY error_class
"""
_INSTANCES = """
SELECT version, slots, cpu_seconds, rss_bytes, cardinality(partitions) AS partitions, seen_at FROM instances
WHERE seen_at > now() - interval '1 day' ORDER BY seen_at DESC LIMIT 100
"""

Gatherer = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the archive, as manifest.json has it; `error`: why there is no such file."""

    name: str
    seconds: float
    size_bytes: int = 0
    error: str | None = None


async def make(
    loaded: LoadedConfig, admin: str | None, file: Path, done: Callable[[str], None] = lambda _name: None
) -> list[Part]:
    """Write the archive, which only its owner can read, and return what is in it.

    `admin` is the daemon's address, None where it has none. `done` hears of each part. What cannot be had is a line in
    the manifest. Raises FileExistsError and other OSErrors.
    """
    redaction = Redaction(loaded.settings)
    gatherers = _gatherers(loaded, admin, redaction)
    files: dict[str, bytes] = {}

    async def gather(name: str, gatherer: Gatherer) -> Part:
        began = time.monotonic()
        try:
            async with asyncio.timeout(PART_SECONDS):
                files[name] = _encoded(await gatherer(), redaction)
        except Exception as error:  # noqa: BLE001 (whatever is broken: the rest of the bundle is to tell of it)
            told = redaction.text(f"{type(error).__name__}: {error}")[:500]
            return Part(name, round(time.monotonic() - began, 2), error=told)
        finally:
            done(name)
        return Part(name, round(time.monotonic() - began, 2), len(files[name]))

    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # before the work: it may not be possible
    try:
        parts = list(await asyncio.gather(*(gather(name, each) for name, each in gatherers.items())))
        made = datetime.now(UTC).isoformat(timespec="seconds")
        manifest = {"v2td": __version__, "made": made, "parts": [asdict(each) for each in parts]}
        with os.fdopen(descriptor, "wb", closefd=False) as target:
            _pack({"manifest.json": _encoded(manifest, redaction), **files}, target)
    except BaseException:
        os.unlink(file)  # noqa: PTH108 (which knows no asyncio, and takes no time)
        raise
    finally:
        os.close(descriptor)
    return parts


def _gatherers(loaded: LoadedConfig, admin: str | None, redaction: Redaction) -> dict[str, Gatherer]:
    settings = loaded.settings

    async def log() -> str:
        return redaction.log(await _journal())

    found: dict[str, Gatherer] = {
        "config.json": lambda: _config(loaded),
        "versions.json": _versions,
        "host.json": lambda: asyncio.to_thread(_host, settings),
        "check.json": lambda: _checks(settings),
        "group.json": lambda: _kafka(settings),
        "tables.json": lambda: _database(settings),
        "journal.txt": log,
    }
    for name, path in ADMIN.items():
        found[name] = _asked(admin, path, settings)
    return found


def _encoded(value: Any, redaction: Redaction) -> bytes:
    if isinstance(value, str):
        return redaction.text(value).encode()
    return json.dumps(redaction.value(value), indent=1, ensure_ascii=False, default=str).encode() + b"\n"


def _pack(files: dict[str, bytes], target: io.BufferedWriter) -> None:
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"v2td-debug/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(content))


async def _config(loaded: LoadedConfig) -> Any:
    sources = {key: str(source) for key, source in loaded.sources.items()}
    return {"file": str(loaded.path), "settings": redacted(loaded.settings), "sources": sources}


async def _versions() -> Any:
    return {
        "v2td": __version__,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "libc": platform.libc_ver(),
        "packages": dict(sorted((each.name, each.version) for each in distributions())),
    }


def _host(settings: Settings) -> Any:
    memory = psutil.virtual_memory()
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "os": _os_release(),
        "cpus": psutil.cpu_count(),
        "load": os.getloadavg(),
        "memory_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "seen": asdict(read_machine()),
        "recommendations": [asdict(each) for each in recommendations(settings)],
    }


def _os_release() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    except OSError:
        return "unknown"


async def _checks(settings: Settings) -> Any:
    """As `v2td check --json` has them, but for the model."""
    chosen = {name: each for name, each in check.checkers(settings, offline=False).items() if name not in NOT_CHECKED}
    found = await asyncio.gather(*(check.run(name, each, settings) for name, each in chosen.items()))
    checks = [asdict(each) for group in found for each in group]
    return {"ok": all(each["ok"] for each in checks), "checks": checks, "not_checked": sorted(NOT_CHECKED)}


async def _kafka(settings: Settings) -> Any:
    async with KafkaSource(settings.kafka, None) as source:
        seen = await source.look()
    partitions = [
        {"topic": topic, "partition": number, **asdict(offsets)} for (topic, number), offsets in seen.partitions.items()
    ]
    return {"state": seen.state, "members": seen.members, "partitions": partitions}


async def _database(settings: Settings) -> Any:
    """Versions, counts and sizes; no row's content."""
    version = await store.schema_version(settings.database.dsn.get_secret_value())
    async with (
        store.open_database(settings.database, "v2td debug", read_only=True) as database,
        database.acquire("look at the tables") as connection,
    ):
        return {
            "schema_version": version,
            "latest_version": store.latest_version(),
            "server": await connection.fetchval("SHOW server_version"),
            "tables": [dict(row) for row in await connection.fetch(_SIZES)],
            "failures_of_a_day": [dict(row) for row in await connection.fetch(_FAILURES)],
            "instances_of_a_day": [dict(row) for row in await connection.fetch(_INSTANCES)],
        }


async def _journal() -> str:
    process = await asyncio.create_subprocess_exec(
        *("journalctl", "--unit", UNITS, "--lines", str(JOURNAL_LINES), "--output", "cat", "--no-pager", "--quiet"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    lines, said = await process.communicate()
    if process.returncode or not lines:
        raise OSError(
            said.decode(errors="replace").strip() or "the journal has nothing of v2td that this user may read"
        )
    return lines.decode(errors="replace")


def _asked(admin: str | None, path: str, settings: Settings) -> Gatherer:
    async def ask() -> Any:
        if admin is None:
            raise OSError("the configuration has no address of an admin endpoint: give --admin")
        async with AdminSource(admin, settings.admin) as source:
            answer = await source.get(path)
        return answer if path == "/metrics" else json.loads(answer)

    return ask
