import asyncio
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import asyncpg
from hypothesis import given
from hypothesis import strategies as st

from v2td.store import Database, ensure_partitions
from v2td.store.connection import Connection
from v2td.store.partitions import partition_of, wanted

DAYS = st.dates(date(1, 1, 1), date(9990, 12, 31))


@given(DAYS)
def test_a_day_lies_in_its_partition(day: date) -> None:
    partition = partition_of(day)
    assert partition.start <= day < partition.end
    assert (partition.start.day, partition.end.day) == (1, 1)
    assert partition_of(partition.end - timedelta(days=1)) == partition


@given(DAYS, st.integers(0, 40))
def test_wanted_partitions_leave_no_gap(today: date, months_ahead: int) -> None:
    partitions = wanted(today, months_ahead)
    assert len(partitions) == months_ahead + 1
    assert partitions[0] == partition_of(today)
    assert all(one.end == other.start for one, other in pairwise(partitions))
    names = [partition.name for partition in partitions]
    assert sorted(set(names)) == names


def test_names_and_bounds() -> None:
    december, january = wanted(date(2026, 12, 31), 1)
    assert (december.name, january.name) == ("transcript_segments_2026_12", "transcript_segments_2027_01")
    assert (january.start, january.end) == (date(2027, 1, 1), date(2027, 2, 1))


async def test_ensure_makes_what_is_missing_once(sql: Connection) -> None:
    months = [partition.name for partition in wanted(datetime.now(UTC).date(), 3)]
    assert await ensure_partitions(sql, 1) == months[:2]
    assert await ensure_partitions(sql, 1) == []
    assert await ensure_partitions(sql, 3) == months[2:]


async def test_instances_may_ensure_at_once(store: Database, schema: None, database: str) -> None:
    connections = [await asyncpg.connect(database) for _ in range(4)]
    made = await asyncio.gather(*(ensure_partitions(connection, 2) for connection in connections))
    assert sorted(map(len, made)) == [0, 0, 0, 3]
    for connection in connections:
        await connection.close()


async def test_bounds_are_utc_whatever_the_session_says_and_the_index_is_inherited(sql: Connection) -> None:
    await sql.execute("SET TimeZone = 'Pacific/Kiritimati'")
    (name,) = await ensure_partitions(sql, 0)
    await sql.execute("SET TimeZone = 'UTC'")
    bounds = await sql.fetchval("SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = $1", name)
    month = partition_of(datetime.now(UTC).date())
    assert bounds == f"FOR VALUES FROM ('{month.start} 00:00:00+00') TO ('{month.end} 00:00:00+00')"
    assert await sql.fetchval("SELECT count(*) FROM pg_indexes WHERE tablename = $1", name) == 1


async def test_nothing_to_do_takes_no_lock(sql: Connection, store: Database) -> None:
    await ensure_partitions(sql, 1)
    async with store.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE transcript_segments IN ACCESS EXCLUSIVE MODE")
        assert await asyncio.wait_for(ensure_partitions(sql, 1), 5) == []
