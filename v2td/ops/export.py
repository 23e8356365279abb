"""Transcripts as files: chosen, rendered, and written where they are not there yet."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, TypeVar
from uuid import UUID

from v2td import subtitles
from v2td.config import Format, Settings
from v2td.formats import FORMATS, Document
from v2td.jobs import Segment
from v2td.ops.export_folder import File, Folder, open_folder
from v2td.store import Database, Reader, StoredFailure, StoredTranscription, open_database
from v2td.store.exports import Head, Selection, count, heads, heads_of, with_segments
from v2td.store.search import matching
from v2td.subtitles import Rules

FILES_AT_ONCE = 100  # of which all are on the disk before any has its name
MAX_NAME_BYTES = 120  # of a message's own id in a file's name; the longest name of most file systems is 255

Naming = Literal["id", "job_id"]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be exported: certain jobs (row ids or messages' own), or all that fit the selection and `query`."""

    jobs: tuple[str, ...] = ()
    selection: Selection = field(default_factory=Selection)
    query: str | None = None


@dataclass(frozen=True, slots=True)
class How:
    """How files are written: in which formats, by which reading rules, and named how."""

    formats: tuple[Format, ...]
    rules: Rules = field(default_factory=Rules)
    naming: Naming = "id"


@dataclass(slots=True)
class Exported:
    """What came of it, in transcripts but for `files` and `bytes`; `troubles` say of JOBs why there is no file."""

    written: int = 0
    there: int = 0  # before, and of the same revision
    files: int = 0
    bytes: int = 0
    troubles: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Batch:
    """Files that are to be written together."""

    folder: Folder
    exported: Exported
    files: list[File] = field(default_factory=list)
    transcripts: int = 0

    async def write(self) -> None:
        """Write them; a cancellation waits until all are there."""
        files, transcripts = self.files, self.transcripts
        self.files, self.transcripts = [], 0
        self.exported.bytes += await _finished(lambda: self.folder.write(files))
        self.exported.files += len(files)
        self.exported.written += transcripts


@asynccontextmanager
async def open_exporter(settings: Settings, wanted: Wanted) -> AsyncIterator[Exporter]:
    """Connect to Postgres, and look up which transcripts are meant.

    Raises ServiceError, and InvalidSearchError of a query that cannot be searched.
    """
    async with open_database(settings.database, "v2td export", read_only=True) as database:
        exporter = Exporter(database, wanted)
        await exporter.look_up()
        yield exporter


class Exporter:
    """Writes what is wanted; made by `open_exporter`. `total` is how many transcripts there are."""

    def __init__(self, database: Database, wanted: Wanted) -> None:
        self._database = database
        self._wanted = wanted
        self._ids: list[UUID] | None = None
        self.total = 0
        self.exported = Exported()

    async def look_up(self) -> None:
        """Find out which transcripts are meant."""
        where = self._wanted.selection
        if self._wanted.jobs:
            self._ids = [row_id for job in self._wanted.jobs if (row_id := await self._of(job)) is not None]
            self._ids = list(dict.fromkeys(self._ids))
        elif self._wanted.query is not None:
            self._ids = await matching(
                self._database, self._wanted.query, language=where.language, since=where.since, until=where.until
            )
        self.total = await count(self._database, where) if self._ids is None else len(self._ids)

    async def to_folder(self, path: Path, how: How, *, force: bool, on_done: Callable[[], None]) -> None:
        """Write files into a folder; `on_done` is called for each transcript. Raises ServiceError.

        Stopped at any point, each file is there whole or not at all, and the same call goes on from there. With
        `force` what is there is written again.
        """
        options = {"name": how.naming, **asdict(how.rules)}
        with open_folder(path, options, force=force) as folder:
            batch = _Batch(folder, self.exported)
            async with aclosing(self._heads()) as pages:
                async for page in pages:
                    missing = {head.id: _missing(folder, head, how, force=force) for head in page}
                    for head in page:
                        if not missing[head.id]:
                            self.exported.there += 1
                            on_done()
                    async with aclosing(
                        with_segments(self._database, [head for head in page if missing[head.id]])
                    ) as found:
                        async for head, segments in found:
                            batch.files += _files(head, segments, missing[head.id], how)
                            batch.transcripts += 1
                            if len(batch.files) >= FILES_AT_ONCE:
                                await batch.write()
                            on_done()
            await batch.write()

    async def texts(self, how: How) -> AsyncGenerator[str, None]:
        """Yield the transcripts, rendered in the first format; raises ServiceError."""
        async with aclosing(self._heads()) as pages:
            async for page in pages:
                async with aclosing(with_segments(self._database, page)) as found:
                    async for head, segments in found:
                        self.exported.written += 1
                        yield render(head, segments, how.formats[0], how.rules)

    def _heads(self) -> AsyncGenerator[list[Head], None]:
        if self._ids is None:
            return heads(self._database, self._wanted.selection)
        return heads_of(self._database, self._ids)

    async def _of(self, job: str) -> UUID | None:
        """Return which transcription JOB means; why none does is among the troubles."""
        found = await Reader(self._database).find(job)
        transcribed = [each for each in found if isinstance(each, StoredTranscription)]
        if len(transcribed) == 1:
            return transcribed[0].id
        if transcribed:
            ids = " ".join(str(each.id) for each in transcribed)
            self.exported.troubles.append((job, f"several have this id, name one by its row's: {ids}"))
        elif failed := next((each for each in found if isinstance(each, StoredFailure)), None):
            self.exported.troubles.append((job, f"it failed ({failed.error_class}): {failed.reason}"))
        else:
            self.exported.troubles.append((job, "no such job"))
        return None


def render(head: Head, segments: Sequence[Segment], name: Format, rules: Rules) -> str:
    """Return a transcript in a format; subtitles obey the rules."""
    document = Document(tuple(segments), head.language, head.audio_seconds, head.model)
    match name:
        case "srt":
            return subtitles.srt(document, rules)
        case "vtt":
            return subtitles.vtt(document, rules)
        case _:
            return FORMATS[name](document)


def file_stem(head: Head, naming: Naming) -> str:
    """Return a file's name without its suffix: no two transcriptions have the same, and none leaves the folder."""
    if naming == "id" or not head.job_id:
        return str(head.id)
    kept = "".join(each if each in "-_." or unicodedata.category(each)[0] in "LN" else "_" for each in head.job_id)
    kept = kept.encode()[:MAX_NAME_BYTES].decode(errors="ignore").lstrip(".-")
    return f"{kept}-{head.id}" if kept else str(head.id)


def _missing(folder: Folder, head: Head, how: How, *, force: bool) -> list[Format]:
    stem = file_stem(head, how.naming)
    return [each for each in how.formats if force or not folder.holds(f"{stem}.{each}", head.created_at)]


def _files(head: Head, segments: Sequence[Segment], formats: Sequence[Format], how: How) -> Iterator[File]:
    stem = file_stem(head, how.naming)
    for each in formats:
        yield File(f"{stem}.{each}", render(head, segments, each, how.rules), head.created_at)


async def _finished(work: Callable[[], Result]) -> Result:
    """Run what blocks in a thread; a cancellation waits for it."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
