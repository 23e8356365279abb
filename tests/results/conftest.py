"""A cache of results over the real Postgres."""

from collections.abc import AsyncIterator

import pytest

from tests.store.conftest import schema, settings, sql, store, writing
from v2td.config import CacheSettings
from v2td.results import ResultCache
from v2td.store import Database

__all__ = ["schema", "settings", "sql", "store", "writing"]


@pytest.fixture
async def cache(store: Database) -> AsyncIterator[ResultCache]:
    async with ResultCache(store, CacheSettings(results=True)) as opened:
        yield opened
