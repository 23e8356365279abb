"""Search from the command line: pages of matches, one after the other, from whichever server serves look-ups."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime

from v2td.config import Settings
from v2td.store import open_database
from v2td.store.search import Match, search

PAGE = 50


@dataclass(frozen=True, slots=True)
class Asked:
    """What is searched for, and where; `until` is not among them."""

    query: str
    language: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def found(settings: Settings, asked: Asked, limit: int) -> AsyncGenerator[Match, None]:
    """Yield the newest transcripts that say it, at most `limit`; raises InvalidSearchError and ServiceError."""
    cursor = None
    async with open_database(settings.database, "v2td search", read_only=True) as database:
        while limit:
            page = await search(
                database,
                asked.query,
                language=asked.language,
                since=asked.since,
                until=asked.until,
                limit=min(PAGE, limit),
                cursor=cursor,
            )
            for match in page.matches:
                yield match
            limit -= len(page.matches)
            if (cursor := page.cursor) is None:
                return
