"""Who is at work: each instance keeps its row in `instances` up to date."""

from __future__ import annotations

import os
import socket
from dataclasses import astuple, dataclass

from v2td.config import KafkaSettings
from v2td.store.pool import Database

_UPSERT = """
INSERT INTO instances (name, host, pid, version, slots, cpu_seconds, rss_bytes, partitions, seen_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now())
ON CONFLICT (name) DO UPDATE SET (host, pid, version, slots, cpu_seconds, rss_bytes, partitions, seen_at)
    = (excluded.host, excluded.pid, excluded.version, excluded.slots, excluded.cpu_seconds, excluded.rss_bytes,
       excluded.partitions, excluded.seen_at)
"""


@dataclass(frozen=True, slots=True)
class Instance:
    """What an instance says of itself.

    `cpu_seconds` and `rss_bytes` are those of the daemon and its children; `partitions` are written topic/partition.
    """

    name: str
    host: str
    pid: int
    version: str
    slots: int
    cpu_seconds: float
    rss_bytes: int
    partitions: tuple[str, ...]


def instance_name(settings: KafkaSettings) -> str:
    """Return what this process is called in `instances` and by `--instance`: kafka.group_instance_id, if it is set.

    Else the name holds the process's id, and another one comes with a restart.
    """
    return settings.group_instance_id or f"{settings.client_id}@{socket.gethostname()}:{os.getpid()}"


async def report(database: Database, instance: Instance) -> None:
    """Write the instance's row, seen now by the server's clock; raises ServiceError."""
    async with database.acquire("report this instance") as connection:
        await connection.execute(_UPSERT, *astuple(instance))
