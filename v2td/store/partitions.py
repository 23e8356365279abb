"""The monthly partitions of transcript_segments: which there should be (pure), and making them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from v2td.store.connection import Connection

PARENT = "transcript_segments"
LOCK_KEY = 0x763274645F706172  # "v2td_par": taken while partitions are made


@dataclass(frozen=True, slots=True)
class Partition:
    """One UTC month of transcript_segments: [start, end)."""

    start: date
    end: date

    @property
    def name(self) -> str:
        """Table name, which sorts as the months do."""
        return f"{PARENT}_{self.start.year:04}_{self.start.month:02}"


def partition_of(day: date) -> Partition:
    """Return the partition in which the day's rows lie."""
    start = day.replace(day=1)
    return Partition(start, _next_month(start))


def wanted(today: date, months_ahead: int) -> tuple[Partition, ...]:
    """Return this month's partition and those of the months ahead, in order."""
    partitions = [partition_of(today)]
    for _ in range(months_ahead):
        partitions.append(partition_of(partitions[-1].end))
    return tuple(partitions)


async def ensure(connection: Connection, months_ahead: int) -> list[str]:
    """Make the partitions that are missing, by the server's clock; return their names.

    One SELECT when there is nothing to do. Any number of instances may call it at once; a cancelled call makes
    all of its partitions or none. Errors come as the connection's lender has them.
    """
    if not await _missing(connection, months_ahead):
        return []
    async with connection.transaction(isolation="read_committed"):  # so that others' partitions are seen
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK_KEY)
        missing = await _missing(connection, months_ahead)
        for partition in missing:
            # Made apart and then attached: that lets readers and writers of the other months go on.
            await connection.execute(f"CREATE TABLE IF NOT EXISTS {partition.name} (LIKE {PARENT} INCLUDING ALL)")
            await connection.execute(
                f"ALTER TABLE {PARENT} ATTACH PARTITION {partition.name}"
                f" FOR VALUES FROM ('{partition.start} 00:00+00') TO ('{partition.end} 00:00+00')"
            )
    return [partition.name for partition in missing]


async def _missing(connection: Connection, months_ahead: int) -> list[Partition]:
    row = await connection.fetchrow(
        """
        SELECT (now() AT TIME ZONE 'UTC')::date AS today,
               ARRAY(SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                     WHERE i.inhparent = $1::text::regclass) AS names
        """,
        PARENT,
    )
    present = set(row["names"])
    return [partition for partition in wanted(row["today"], months_ahead) if partition.name not in present]


def _next_month(first: date) -> date:
    return first.replace(year=first.year + 1, month=1) if first.month == 12 else first.replace(month=first.month + 1)
