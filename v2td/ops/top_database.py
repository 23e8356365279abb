"""What `v2td top` sees in Postgres: recent outcomes, and the instances that report there.

Every query reads an index of `created_at` backwards and stops at ROWS: it costs the same on a table of any size.
"""

from __future__ import annotations

from v2td.ops.top_seen import DatabaseSeen, InstanceSeen, LastFailure, Latency
from v2td.store import Database

ROWS = 50_000  # of each table; where more came in the window, the newest ones are looked at
MEAN_ROWS = 1_000  # recordings whose mean length stands for those that wait
GONE_SECONDS = 3600.0  # instances silent for longer are left out
INSTANCES = 500

_LATENCIES = f"""
WITH recent AS (
    SELECT provider, duration, audio_seconds, cached_from, created_at FROM transcriptions
    WHERE created_at > now() - make_interval(secs => $1) ORDER BY created_at DESC LIMIT {ROWS}
), span AS (
    SELECT CASE WHEN count(*) < {ROWS} THEN $1 ELSE extract(epoch FROM now() - min(created_at)) END AS seconds
    FROM recent
)
SELECT (SELECT seconds FROM span)::float8 AS window_seconds, provider, count(*) AS jobs, count(cached_from) AS cached,
    sum(audio_seconds) AS audio_seconds,
    percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY duration) FILTER (WHERE cached_from IS NULL)
        AS percentiles
FROM recent GROUP BY provider ORDER BY jobs DESC, provider
"""  # noqa: S608 (our own numbers)
_FAILURES = f"""
WITH recent AS (
    SELECT error_class, created_at FROM failures
    WHERE created_at > now() - make_interval(secs => $1) ORDER BY created_at DESC LIMIT {ROWS}
), span AS (
    SELECT CASE WHEN count(*) < {ROWS} THEN $1 ELSE extract(epoch FROM now() - min(created_at)) END AS seconds
    FROM recent
)
SELECT (SELECT seconds FROM span)::float8 AS window_seconds, error_class, count(*) AS jobs
FROM recent GROUP BY error_class ORDER BY jobs DESC, error_class
"""  # noqa: S608 (our own numbers)
_LAST_FAILURE = """
SELECT error_class, reason, extract(epoch FROM now() - created_at)::float8 AS ago_seconds FROM failures
WHERE created_at > now() - make_interval(secs => $1) ORDER BY created_at DESC LIMIT 1
"""
_MEAN = f"""
SELECT avg(audio_seconds) FROM
    (SELECT audio_seconds FROM transcriptions ORDER BY created_at DESC LIMIT {MEAN_ROWS}) AS newest
"""  # noqa: S608 (our own number)
_INSTANCES = f"""
SELECT name, host, pid, version, slots, cpu_seconds, rss_bytes, cardinality(partitions) AS partitions,
    extract(epoch FROM seen_at)::float8 AS seen_epoch,
    greatest(0, extract(epoch FROM clock_timestamp() - seen_at))::float8 AS ago_seconds
FROM instances WHERE seen_at > now() - make_interval(secs => $1) ORDER BY seen_at DESC LIMIT {INSTANCES}
"""  # noqa: S608 (our own number)


async def look(database: Database, window_seconds: float) -> DatabaseSeen:
    """Return what ended within the window, and who is at work; ServiceError when Postgres does not say."""
    async with database.read("ask Postgres") as connection:
        latencies = await connection.fetch(_LATENCIES, window_seconds)
        failures = await connection.fetch(_FAILURES, window_seconds)
        last = await connection.fetchrow(_LAST_FAILURE, window_seconds)
        mean = await connection.fetchval(_MEAN)
        instances = await connection.fetch(_INSTANCES, GONE_SECONDS)
    return DatabaseSeen(
        window_seconds=latencies[0]["window_seconds"] if latencies else window_seconds,
        latencies=tuple(
            Latency(
                row["provider"],
                row["jobs"],
                row["cached"],
                row["audio_seconds"],
                *(row["percentiles"] or (None, None, None)),
            )
            for row in latencies
        ),
        failures_seconds=failures[0]["window_seconds"] if failures else window_seconds,
        failures={row["error_class"]: row["jobs"] for row in failures},
        last_failure=None if last is None else LastFailure(**last),
        mean_audio_seconds=mean,
        instances=tuple(InstanceSeen(**row) for row in instances),
    )
