from dataclasses import asdict, replace

from v2td.store import Database, Instance, report
from v2td.store.connection import Connection


async def test_an_instance_has_one_row_that_is_brought_up_to_date(store: Database, sql: Connection) -> None:
    first = Instance("a", "host", 42, "1.0", 4, 1.5, 2**33, ("jobs/0", "jobs/1"))
    await report(store, first)
    seen = await sql.fetchval("SELECT seen_at FROM instances")
    later = replace(first, pid=43, cpu_seconds=2.5, partitions=())
    await report(store, later)
    await report(store, replace(first, name="b"))
    rows = [dict(row) for row in await sql.fetch("SELECT * FROM instances ORDER BY name")]
    assert rows[0].pop("seen_at") > seen
    assert rows[0] == asdict(later) | {"partitions": []}
    assert (rows[1]["name"], rows[1]["partitions"]) == ("b", ["jobs/0", "jobs/1"])
