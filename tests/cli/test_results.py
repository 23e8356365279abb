"""`v2td export`, `search`, `show` and `db search-index` as people run them, on rows that the writer wrote."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from tests.cli.conftest import Answer
from tests.store.outcomes import coordinates, failure, segment, transcript
from v2td.cli.app import app
from v2td.config import DatabaseSettings
from v2td.jobs import Redo, Replay, SourceRecord
from v2td.store import ensure_partitions, note_death, open_database, redos, upgrade
from v2td.store.batch import insert
from v2td.store.redos import Wish
from v2td.store.rows import rows_of

Run = Callable[..., Answer]

HOSTILE = "\x1b]0;owned\x07\u202e<script>[bold]"
WINDOWS = [
    {"index": n, "slot": n % 2, "start": 0.5, "seconds": 1.0, "flags": ["silence"], "batch": 1} for n in range(4)
]
HEARD = transcript(
    1,
    *("The trains were late.", f"Good morning {HOSTILE}", *"cdefg"),
    job={"tenant": HOSTILE, "metadata": {HOSTILE: HOSTILE}},
    route={"rule": "default"},
    timings={"attempts": 2, "fetch": 0.5, "prepare": 0.25, "transcribe": 1.0, "windows": WINDOWS, "damage": HOSTILE},
)
COPY = transcript(2, "The trains were late.", job={"job_id": "same"}, cached_from=HEARD.job.id)
OTHER = transcript(3, "Xin chào", language="vi", job={"job_id": "same"}, segments=(segment("Xin chào"),))
RECORD = SourceRecord(b"key", b"{}", ())


@pytest.fixture
async def env(database: str) -> dict[str, str]:
    """Three transcriptions, one of them done again and told by webhook; a failure; a job that has not ended."""
    await upgrade(database)
    async with open_database(DatabaseSettings(dsn=SecretStr(database), pool_min=0)) as store:
        async with store.raw() as connection:
            await ensure_partitions(connection, 1)
            await insert(connection, [*map(rows_of, (HEARD, COPY, OTHER)), rows_of(failure(4, reason=HOSTILE))])
        await redos.note(store, "large", None, [Wish(OTHER.job.id, Replay.digest(RECORD))])
        again = {"record": RECORD, "replay": Replay(coordinates(99)), "redo": Redo(1, "large"), "job_id": "same"}
        async with store.raw() as connection:
            await insert(connection, [rows_of(transcript(3, "Xin cảm ơn", language="vi", job=again, model="large"))])
            await connection.execute(
                "INSERT INTO webhooks (id, job, revision, event, url, host) "
                "VALUES (gen_random_uuid(), $1, 0, 'transcribed', 'https://u:p@hook.example/?token=hunter2', 'x')",
                OTHER.job.id,
            )
        await note_death(store, coordinates(5))
    return {"V2TD_DATABASE__DSN": database}


@pytest.fixture
def v2td(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run a command in this process, which saves a second each; what it does to signals is undone."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setenv("V2TD_CONFIG", os.devnull)

    def run(*arguments: str | Path, **env: str) -> Answer:
        result = CliRunner().invoke(app, [*map(str, arguments)], env=env)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def entry(answer: Answer, code: int = 0) -> Any:
    assert answer.code == code, answer.stderr
    return json.loads(answer.stdout)


def test_show(v2td: Run, env: dict[str, str]) -> None:
    answer = v2td("show", "job-1", **env)
    assert answer.code == 0, answer.stderr
    assert not set(answer.stdout) & set("\x1b\x07\u202e"), "nothing steers a terminal"
    for told in (str(HEARD.job.id), "jobs/0/1", "slot 1", "window 3: silence", "… 2 more segments", "<script>[bold]"):
        assert told in answer.stdout
    waterfall = answer.stdout.partition("Waterfall\n")[2].partition("Notes")[0].splitlines()
    assert max(map(len, waterfall)) <= 80
    assert answer.stdout.partition("Same text as this one's")[2].split()[0] == str(COPY.job.id)

    shown = entry(v2td("show", str(OTHER.job.id), "--json", **env))
    assert (shown["state"], shown["revision"], shown["model"], shown["text"]) == (
        "transcribed",
        1,
        "large",
        "Xin cảm ơn",
    )
    assert [each["text"] for each in shown["revisions"]] == ["Xin cảm ơn", "Xin chào"]
    assert (len(shown["redos"]), len(shown["replays"]), len(shown["webhooks"])) == (1, 1, 1)
    assert shown["webhooks"][0]["url"] == "https://hook.example/"
    assert "hunter2" not in json.dumps(shown)

    failed = v2td("show", "job-4", **env)
    assert "not_audio" in failed.stdout
    assert "v2td-dead-letters" in failed.stdout
    assert "\x1b" not in failed.stdout
    unfinished = entry(v2td("show", str(coordinates(5).row_id()), "--json", **env))
    assert (unfinished["state"], unfinished["deaths"][0]["deaths"]) == ("under_way", 1)


def test_a_name_that_is_no_ones_or_of_several(v2td: Run, env: dict[str, str]) -> None:
    ids = {str(COPY.job.id), str(OTHER.job.id)}
    several = v2td("show", "same", **env)
    assert several.code == 1
    assert {line.split()[0] for line in several.stdout.splitlines()} == ids
    assert {each["id"] for each in entry(v2td("show", "same", "--json", **env), 1)["candidates"]} == ids
    nobody = v2td("show", HOSTILE, **env)
    assert (nobody.code, nobody.stdout) == (1, "")
    assert nobody.stderr == "\\x1b]0;owned\\x07\\u202e<script>[bold]: no such job\n"


def test_search_and_its_index(v2td: Run, env: dict[str, str]) -> None:
    answer = v2td("search", "train", "late", **env)
    assert answer.code == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert {lines[0].split()[0], lines[2].split()[0]} == {str(HEARD.job.id), str(COPY.job.id)}
    assert lines[1] == lines[3] == "    00:00 The trains were late."
    made = entry(v2td("db", "search-index", "--json", **env))
    assert made["size_bytes"] > 0
    (match,) = entry(v2td("search", "cam on", "--language", "vi", "--json", **env))["matches"]
    assert (match["id"], match["revision"]) == (str(OTHER.job.id), 1)
    assert match["passages"][0]["marks"] == [[4, 7], [8, 10]]
    hostile = v2td("search", "morning", "--limit", "1", **env)
    assert "\x1b" not in hostile.stdout
    nobody = v2td("search", "evening", **env)
    assert (nobody.code, nobody.stdout, nobody.stderr) == (1, "", "nobody says it\n")
    wrong = v2td("search", " ! ", **env)
    assert wrong.code == 2
    assert "has no word" in wrong.stderr
    assert (v2td("db", "search-index", "--drop", **env)).stdout == "dropped\n"


def test_export(v2td: Run, env: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    told = entry(v2td("export", "--query", "train", "-f", "srt,md", "-o", folder, "--json", **env))
    assert (told["written"], told["files"], told["there"], told["troubles"]) == (2, 4, 0, [])
    assert {file.name for file in folder.glob("[!.]*")} == {
        f"{each.job.id}.{name}" for each in (HEARD, COPY) for name in ("srt", "md")
    }
    again = v2td("export", "--query", "train", "-f", "srt,md", "-o", folder, **env)
    assert (again.code, again.stdout, again.stderr) == (0, "", "0 written (0 files), 2 were there\n")
    some = v2td("export", "job-1", "same", "nobody", HOSTILE, "-o", folder, **env)
    assert some.code == 1
    assert "nobody: no such job" in some.stderr
    assert "same: several have this id" in some.stderr
    assert "\x1b" not in some.stderr
    assert (folder / f"{HEARD.job.id}.txt").read_text().startswith("The trains were late.\n")
    printed = v2td("export", str(OTHER.job.id), "-f", "txt", "-o", "-", **env)
    assert (printed.code, printed.stdout) == (0, "Xin cảm ơn\n")
    for wrong in (("-o", "-"), ("job-1", "--since", "1d", "-o", folder), ("job-1", "-f", "doc", "-o", folder), ()):
        assert (v2td("export", *wrong, **env)).code == 2
