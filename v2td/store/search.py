"""Full-text search of transcripts: what was said, in whom, and where in the recording.

Each row is searched by the rules of its own language (v2td_text_search), and by its plain words without accents. The
newest revision of each is looked at, and the newest transcripts come first.
"""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from v2td.config.languages import LANGUAGES
from v2td.errors import ServiceError
from v2td.store.connection import Connection
from v2td.store.passages import APART, Passage, Wanted, passages
from v2td.store.pool import Database
from v2td.store.sanitise import clean_text, moment_of

__all__ = ["INDEX", "MAX_QUERY", "InvalidSearchError", "Match", "Page", "Passage", "matching", "search"]

INDEX = "transcriptions_text_search"
MAX_QUERY = 1_000  # characters
UNINDEXED_ROWS = 5_000  # some 20 s without the index, for transcripts of a quarter of an hour
AT_ONCE = 10_000  # rows of `matching`

_RUN = re.compile(f"[{APART}]+")
_WORD = re.compile(r"\w")
_LEXEME = re.compile(r"'(?:[^']|'')*'")  # of a tsquery as text
_TOGETHER = re.compile(rf"({_LEXEME.pattern})|<(?:-|\d+)>")

_CONFIGURATIONS = """
SELECT query::text, array_agg(config::text ORDER BY config::text) AS configs FROM (
    SELECT config, CASE WHEN $2 ~ '(^|\\s)-\\S' THEN websearch_to_tsquery(config, $2)
                   ELSE websearch_to_tsquery(config, $2) || websearch_to_tsquery('simple', $2) END AS query
    FROM (SELECT DISTINCT v2td_text_search(language) AS config FROM unnest($1::text[]) language) configs
) queries WHERE numnode(query) > 0 GROUP BY query ORDER BY 2
"""
# The condition is the index's expression, letter for letter. What it finds is put in order apart from it, or Postgres
# may read all rows by their time instead, and cut each one's text into words.
_BRANCH = """
SELECT t.id, t.revision, t.created_at, {number} AS branch FROM transcriptions t
WHERE v2td_text_vector(v2td_text_search(t.language), t.text) @@ ${query}::text::tsquery
  AND v2td_text_search(t.language) = ANY(${configs}::text[]::regconfig[])
  AND ($1::text IS NULL OR t.language = $1)
  AND ($2::timestamptz IS NULL OR t.created_at >= $2)
  AND ($3::timestamptz IS NULL OR t.created_at < $3)
  AND ($4::timestamptz IS NULL OR (t.created_at, t.id) < ($4, $5::uuid))
"""
# The index knows which words are in a text, but not where: whether they are together is looked up in the text, which
# takes a millisecond or more, and so of the newest first, until there are enough.
_PAGE = """
WITH found AS MATERIALIZED ({branches})
SELECT * FROM (
    SELECT f.id, f.revision, f.created_at, f.branch FROM found f
    WHERE NOT EXISTS (SELECT FROM transcriptions n WHERE n.id = f.id AND n.revision > f.revision)
    ORDER BY f.created_at DESC, f.id DESC OFFSET 0
) f
WHERE ($7::text[])[f.branch + 1] IS NULL OR (
    SELECT v2td_text_vector(v2td_text_search(t.language), t.text) @@ (($7::text[])[f.branch + 1])::tsquery
    FROM transcriptions t WHERE t.id = f.id AND t.revision = f.revision
)
ORDER BY f.created_at DESC, f.id DESC LIMIT $6
"""
_SHOWN = """
SELECT id, revision, job_id, tenant, language, audio_url, audio_seconds, provider, model, created_at
FROM transcriptions t JOIN unnest($1::uuid[], $2::integer[]) AS ours (id, revision) USING (id, revision)
"""
_INDEXED = """
SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass($1) AND indisvalid)
"""
_ESTIMATE = """
EXPLAIN (FORMAT JSON) SELECT FROM transcriptions t
WHERE ($1::text IS NULL OR t.language = $1)
  AND ($2::timestamptz IS NULL OR t.created_at >= $2) AND ($3::timestamptz IS NULL OR t.created_at < $3)
"""


class InvalidSearchError(ValueError):
    """What is asked for cannot be searched; says which value, and why."""


@dataclass(frozen=True, slots=True)
class Match:
    """A transcript in which it was said; `passages` are the first few segments that say most of it."""

    id: UUID
    revision: int
    job_id: str | None
    tenant: str | None
    language: str | None
    audio_url: str
    audio_seconds: float
    provider: str
    model: str
    created_at: datetime
    passages: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Matches, newest first; `cursor` is what to ask the next ones with, None when there are none."""

    matches: tuple[Match, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Query:
    """The words as the configurations `configs` read them: a tsquery as text."""

    query: str
    configs: tuple[str, ...]

    @property
    def relaxed(self) -> str:
        """The query without asking for words to be together; where that would find less, the query."""
        if "!" in _LEXEME.sub("", self.query):
            return self.query
        return _TOGETHER.sub(lambda found: found[1] or "&", self.query)


@dataclass(frozen=True, slots=True)
class _Found:
    id: UUID
    revision: int
    created_at: datetime
    branch: int


async def search(
    database: Database,
    query: str,
    *,
    language: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 20,
    cursor: str | None = None,
) -> Page:
    """Return the transcripts that say `query`, at most `limit`, newest first, behind `cursor` where one is given.

    `query` is what people type into search engines: all words must be there, "these words together", this or that,
    -without. Raises InvalidSearchError for a query without a word or a too long one, and a cursor that is none of ours;
    ServiceError where there is no index and too much to be searched without.
    """
    words, behind = _words(query), _position(cursor)
    async with _searching(database) as connection:
        queries = await _queries(connection, words, language)
        await _bearable(connection, language, since, until)
        found = await _page(connection, queries, (language, since, until), behind, limit + 1)
        shown = found[:limit]
        rows = {
            row["id"]: row
            for row in await connection.fetch(_SHOWN, [each.id for each in shown], [each.revision for each in shown])
        }
        wanted = [Wanted(each.id, each.revision, each.created_at, queries[each.branch].query) for each in shown]
        said = await passages(connection, wanted)
    matches = tuple(Match(**rows[each.id], passages=said.get(each.id, ())) for each in shown if each.id in rows)
    return Page(matches, _cursor(shown[-1]) if len(found) > limit else None)


async def matching(
    database: Database,
    query: str,
    *,
    language: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[UUID]:
    """Return the ids of all transcripts that say `query`, newest first; raises as `search`."""
    words = _words(query)
    ids: list[UUID] = []
    behind = None
    while True:
        async with _searching(database) as connection:
            queries = await _queries(connection, words, language)
            await _bearable(connection, language, since, until)
            found = await _page(connection, queries, (language, since, until), behind, AT_ONCE)
        ids += [each.id for each in found]
        if len(found) < AT_ONCE:
            return ids
        behind = (found[-1].created_at, found[-1].id)


@asynccontextmanager
async def _searching(database: Database) -> AsyncIterator[Connection]:
    """Lend a connection that does not compile queries, which takes longer than all else of a search."""
    async with database.read("search") as connection, connection.transaction(readonly=True):
        # A bitmap that does not fit into memory would have whole pages of texts cut into words.
        await connection.execute("SET LOCAL jit = off; SET LOCAL work_mem = '64MB'")
        yield connection


def _words(query: str) -> str:
    """Return the query with the characters of scripts without spaces apart, as they are in the index."""
    if len(query) > MAX_QUERY:
        raise InvalidSearchError(f"the query has {len(query)} characters; {MAX_QUERY} are the most")
    query = unicodedata.normalize("NFC", clean_text(query)).lower()  # a server with the locale C knows A to Z only
    if not _WORD.search(query):
        raise InvalidSearchError("the query has no word in it")
    parts = query.split('"')
    for number, part in enumerate(parts):
        quoted = number % 2 == 1 and number < len(parts) - 1
        parts[number] = _RUN.sub(_apart if quoted else _phrase, part)
    return '"'.join(parts).replace('- "', '-"')


def _apart(run: re.Match[str]) -> str:
    return f" {' '.join(run[0])} "


def _phrase(run: re.Match[str]) -> str:
    return f' "{" ".join(run[0])}" '


async def _queries(connection: Connection, words: str, language: str | None) -> list[Query]:
    """Return what the words are in each configuration, those that read them alike together."""
    languages = ["", *LANGUAGES] if language is None else [language]
    rows = await connection.fetch(_CONFIGURATIONS, languages, words)
    return [Query(row["query"], tuple(row["configs"])) for row in rows]


async def _bearable(
    connection: Connection, language: str | None, since: datetime | None, until: datetime | None
) -> None:
    """Raise ServiceError where it would take too long: there is no index, and there are many rows."""
    if await connection.fetchval(_INDEXED, INDEX):
        return
    plan: Any = json.loads(await connection.fetchval(_ESTIMATE, language, since, until))
    rows = plan[0]["Plan"]["Plan Rows"]
    if rows > UNINDEXED_ROWS:
        raise ServiceError(
            "search",
            f"there is no index, and about {rows} transcripts would be read",
            "make it: v2td db search-index; or name a shorter time by --since and --until",
        )


async def _page(
    connection: Connection,
    queries: Sequence[Query],
    where: tuple[object, object, object],
    behind: tuple[datetime, UUID] | None,
    limit: int,
) -> list[_Found]:
    if not queries:
        return []
    exact = [None if each.relaxed == each.query else each.query for each in queries]
    arguments: list[object] = [*where, *(behind or (None, None)), limit, exact]
    branches = []
    for number, each in enumerate(queries):
        arguments += [each.relaxed, list(each.configs)]
        branches.append(_BRANCH.format(number=number, query=len(arguments) - 1, configs=len(arguments)))
    rows = await connection.fetch(_PAGE.format(branches="UNION ALL".join(branches)), *arguments)
    return [_Found(**row) for row in rows]


def _cursor(last: _Found) -> str:
    return base64.urlsafe_b64encode(f"{last.created_at.isoformat()} {last.id}".encode()).decode().rstrip("=")


def _position(cursor: str | None) -> tuple[datetime, UUID] | None:
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        at, _, row_id = base64.urlsafe_b64decode(padded.encode()).decode().partition(" ")
        return moment_of(at), UUID(row_id)
    except ValueError:  # UnicodeError and binascii.Error are ValueErrors
        raise InvalidSearchError("the cursor is none that a search has given") from None
