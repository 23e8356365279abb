"""What a duty does to the process: in one of its own."""

import asyncio
import subprocess
import sys
from datetime import timedelta

import asyncpg
import pytest
from pydantic import SecretStr

from v2td import duties, store
from v2td.config import DatabaseSettings, Settings

PROGRAM = """
import gc
from v2td import duties

class Ring: pass
ring = Ring(); ring.ring = ring; del ring  # garbage of the start is not to be kept for good
duties.tune_garbage_collection()
garbage = [each for each in gc.get_objects() if isinstance(each, Ring)]
gc.unfreeze()
frozen_garbage = [each for each in gc.get_objects() if isinstance(each, Ring)]
duties.tune_garbage_collection()
print(len(garbage), len(frozen_garbage), gc.get_freeze_count() > 10_000, gc.get_threshold() == duties.GC_THRESHOLDS)
"""


def test_what_is_there_at_the_start_is_not_looked_at_again() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, text=True)
    assert done.stdout.split() == ["0", "0", "True", "True"]


async def test_tables_are_swept_soon_after_a_start(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duties, "KEEP_FIRST_SECONDS", 0.0)
    settings = Settings(database=DatabaseSettings(dsn=SecretStr(database)))
    await store.upgrade(database)
    sql = await asyncpg.connect(database)
    try:
        await sql.execute(
            "INSERT INTO submissions (idempotency_key, request_sha256, audio_url, topic, created_at)"
            " VALUES ('old', '', '', 't', now() - $1::interval), ('new', '', '', 't', now())",
            timedelta(days=duties.FORGET_DAYS + 1),
        )
        async with store.open_database(settings.database) as opened:
            keeping = asyncio.create_task(duties.keep_tables(opened, settings))
            async with asyncio.timeout(30):
                while await sql.fetchval("SELECT count(*) FROM submissions") > 1:
                    await asyncio.sleep(0.01)
            keeping.cancel()
        assert await sql.fetchval("SELECT idempotency_key FROM submissions") == "new"
    finally:
        await sql.close()
