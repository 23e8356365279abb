"""Export of rows that the writer wrote: what is chosen, what files hold, how it goes on, and what never happens."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import SecretStr

from tests.store.outcomes import coordinates, failure, segment, transcript
from v2td.config import DatabaseSettings, Format, Settings
from v2td.errors import ServiceError
from v2td.jobs import Redo, Replay, SourceRecord, Word
from v2td.ops.export import Exported, How, Wanted, open_exporter
from v2td.ops.export_folder import MANIFEST
from v2td.store import Database, ensure_partitions, exports, open_database, redos, upgrade
from v2td.store.batch import insert
from v2td.store.exports import Selection
from v2td.store.redos import Wish
from v2td.store.rows import rows_of
from v2td.subtitles import Rules

HOSTILE = "../../etc/passwd\n\x1b[31m/.hidden"
HEARD = [
    transcript(0, "good morning", "everyone", job={"job_id": "same"}),
    transcript(1, "xin chào", language="vi", job={"job_id": "same"}),
    transcript(2, "good evening", job={"job_id": HOSTILE}),
    transcript(3, language=None, segments=(), job={"job_id": None}),
    transcript(4, segments=tuple(segment(f"number {n}", [Word(n, n + 1, f" number {n}", 1.0)], n) for n in range(40))),
]
TXT = How(("txt",))


@pytest.fixture
async def settings(database: str) -> Settings:
    await upgrade(database)
    return Settings.model_validate(
        {"database": DatabaseSettings(dsn=SecretStr(database), pool_min=0), "kafka": {"topics": ["jobs"]}}
    )


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Database]:
    """Five transcripts, an hour between them, the last one now; and a failure."""
    async with open_database(settings.database) as opened:
        async with opened.raw() as connection:
            await ensure_partitions(connection, 1)
            await insert(connection, [*map(rows_of, HEARD), rows_of(failure(5))])
        yield opened


async def export(settings: Settings, folder: Path, how: How = TXT, *, force: bool = False, **wanted: Any) -> Exported:
    done = 0

    def count() -> None:
        nonlocal done
        done += 1

    async with open_exporter(settings, Wanted(**wanted)) as exporter:
        await exporter.to_folder(folder, how, force=force, on_done=count)
    assert done == exporter.total == exporter.exported.written + exporter.exported.there
    return exporter.exported


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()} - {MANIFEST}


async def test_all_of_them_in_every_format(settings: Settings, store: Database, tmp_path: Path) -> None:
    formats = get_args(Format)
    exported = await export(settings, tmp_path, How(formats))
    assert (exported.written, exported.there, exported.files) == (5, 0, 30)
    assert names(tmp_path) == {f"{each.job.id}.{name}" for each in HEARD for name in formats}
    assert exported.bytes == sum((tmp_path / name).stat().st_size for name in names(tmp_path))

    def text(number: int, name: str) -> str:
        return (tmp_path / f"{HEARD[number].job.id}.{name}").read_text()

    assert text(0, "txt") == "good morning\neveryone\n"
    assert text(1, "md").startswith('---\nlanguage: "vi"\n')
    assert json.loads(text(4, "json"))["segments"][39]["words"][0]["start"] == 39
    assert text(3, "srt") == ""
    assert text(2, "srt") == "1\n00:00:00,500 --> 00:00:02,500\ngood evening\n\n"


async def test_in_pages_as_in_one(
    settings: Settings, store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await export(settings, tmp_path / "one", How(("json",)))
    monkeypatch.setattr(exports, "HEADS_AT_ONCE", 2)
    monkeypatch.setattr(exports, "SEGMENTS_AT_ONCE", 7)
    await export(settings, tmp_path / "pages", How(("json",)))
    assert names(tmp_path / "one") == names(tmp_path / "pages")
    for name in names(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "pages" / name).read_bytes()


async def test_which_are_meant(settings: Settings, store: Database, tmp_path: Path) -> None:
    async with store.acquire() as connection:
        await connection.execute(
            "UPDATE transcriptions SET created_at = '2026-05-01 00:00Z'::timestamptz + kafka_offset * interval '1 hour'"
        )

    async def numbers(**wanted: Any) -> list[int]:
        async with open_exporter(settings, Wanted(**wanted)) as exporter:
            found = [head.id async for page in exporter._heads() for head in page]
            assert len(found) == exporter.total
        return sorted(number for number, each in enumerate(HEARD) if each.job.id in found)

    def at(hour: int) -> datetime:
        return datetime(2026, 5, 1, hour, tzinfo=UTC)

    assert await numbers(selection=Selection(since=at(1), until=at(3))) == [1, 2]
    assert await numbers(selection=Selection(language="vi")) == [1]
    assert await numbers(query="good") == [0, 2]
    assert await numbers(query="good", selection=Selection(since=at(1))) == [2]
    assert await numbers(jobs=("job-4", str(HEARD[1].job.id), "job-4")) == [1, 4]


async def test_jobs_that_cannot_be_had_are_named_and_the_others_go_on(
    settings: Settings, store: Database, tmp_path: Path
) -> None:
    exported = await export(settings, tmp_path, jobs=("same", "nobody", "job-5", "job-4"))
    assert names(tmp_path) == {f"{HEARD[4].job.id}.txt"}
    told = dict(exported.troubles)
    assert set(told) == {"same", "nobody", "job-5"}
    assert str(HEARD[0].job.id) in told["same"]
    assert str(HEARD[1].job.id) in told["same"]
    assert told["job-5"] == "it failed (not_audio): this is text"


async def test_names_stay_in_the_folder(settings: Settings, store: Database, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    await export(settings, folder, replace(TXT, naming="job_id"))
    assert names(folder) == {
        f"same-{HEARD[0].job.id}.txt",
        f"same-{HEARD[1].job.id}.txt",
        f"_.._etc_passwd___31m_.hidden-{HEARD[2].job.id}.txt",
        f"{HEARD[3].job.id}.txt",
        f"job-4-{HEARD[4].job.id}.txt",
    }
    assert [file.name for file in tmp_path.iterdir()] == ["deep"]


async def test_it_goes_on_and_a_newer_revision_is_written_anew(
    settings: Settings, store: Database, tmp_path: Path
) -> None:
    await export(settings, tmp_path)
    missing, kept = (tmp_path / f"{HEARD[number].job.id}.txt" for number in (1, 2))
    missing.unlink()
    (tmp_path / ".v2td-7.part").write_text("of an export that was killed")
    inode = kept.stat().st_ino
    again = await export(settings, tmp_path)
    assert (again.written, again.there) == (1, 4)
    assert missing.read_text() == "xin chào\n"
    assert kept.stat().st_ino == inode
    assert not list(tmp_path.glob("*.part"))

    record = SourceRecord(b"key", b"{}", ())
    await redos.note(store, None, None, [Wish(HEARD[2].job.id, Replay.digest(record))])
    job = {"record": record, "replay": Replay(coordinates(99)), "redo": Redo(1, None)}
    async with store.raw() as connection:
        await insert(connection, [rows_of(transcript(2, "good night", job=job))])
    again = await export(settings, tmp_path)
    assert (again.written, again.there) == (1, 4)
    assert kept.read_text() == "good night\n"
    assert (await export(settings, tmp_path, force=True)).written == 5


async def test_other_options_are_not_mixed_in_one_folder(settings: Settings, store: Database, tmp_path: Path) -> None:
    await export(settings, tmp_path, How(("srt",)))
    narrow = How(("srt",), Rules(max_line=20))
    with pytest.raises(ServiceError, match="by other options"):
        await export(settings, tmp_path, narrow)
    assert (await export(settings, tmp_path, narrow, force=True)).written == 5
    assert (await export(settings, tmp_path, narrow)).there == 5


async def test_no_link_in_the_folder_is_followed(settings: Settings, store: Database, tmp_path: Path) -> None:
    folder, theirs = tmp_path / "out", tmp_path / "theirs"
    folder.mkdir()
    theirs.write_text("precious")
    for name in (".v2td-0.part", f"{HEARD[0].job.id}.txt"):
        (folder / name).symlink_to(theirs)
    assert (await export(settings, folder, TXT)).written == 5
    assert not (folder / f"{HEARD[0].job.id}.txt").is_symlink()
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).symlink_to(theirs)
    with pytest.raises(ServiceError, match="link"):
        await export(settings, folder, TXT, force=True)
    assert theirs.read_text() == "precious"


async def test_stopped_in_the_middle_nothing_is_half_there(
    settings: Settings, store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("v2td.ops.export.FILES_AT_ONCE", 1)
    async with open_exporter(settings, Wanted()) as exporter:
        done = 0

        def stop() -> None:
            nonlocal done
            done += 1
            if done == 2:
                assert task is not None
                task.cancel()

        task = asyncio.current_task()
        with pytest.raises(asyncio.CancelledError):
            await exporter.to_folder(tmp_path, TXT, force=False, on_done=stop)
        assert task is not None
        task.uncancel()
    assert 2 <= len(names(tmp_path)) < 5
    assert not list(tmp_path.glob("*.part"))
    exported = await export(settings, tmp_path)
    assert exported.written + exported.there == 5
    assert exported.there >= 2


async def test_a_folder_in_trouble_is_said(settings: Settings, store: Database, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServiceError, match="--output-dir"):
        await export(settings, tmp_path / "file" / "x")
    taken = tmp_path / f"{HEARD[1].job.id}.txt"
    (taken / "full").mkdir(parents=True)
    with pytest.raises(ServiceError, match="directory"):
        await export(settings, tmp_path)
    assert not list(tmp_path.glob("*.part"))
    elsewhere = tmp_path / "secret"
    elsewhere.write_text("mine")
    (tmp_path / f"{HEARD[0].job.id}.json").symlink_to(elsewhere)
    await export(settings, tmp_path, How(("json",)))
    assert elsewhere.read_text() == "mine"
