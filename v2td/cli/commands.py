"""`v2td cancel` and `v2td priority`: commands to jobs, wherever they are."""

from __future__ import annotations

import json as jsonlib
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from v2td.cli.acts import actor
from v2td.cli.failures import printable
from v2td.cli.options import Json
from v2td.cli.settings import Config, Overrides, load
from v2td.cli.terminal import run_until_signal

if TYPE_CHECKING:
    from v2td.config import Settings
    from v2td.store.commands import Command

ROW_VERSION = 8  # of the UUIDs that are rows' ids; messages' own are of other versions
CURE = "name the row's id, as v2td submit and the log have it; a message's own id is known once the job has a row"

Jobs = Annotated[list[str], typer.Argument(metavar="JOB", help="Ids of rows, or the messages' own ids.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@dataclass(frozen=True, slots=True)
class _Found:
    """Jobs that are meant: those that may still be reached, those that have ended, words that name none."""

    open: list[UUID]
    ended: list[UUID]
    unknown: list[str]


def cancel(
    jobs: Jobs,
    *,
    yes: Yes = False,
    json: Json = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Cancel jobs: they end as failures of the class cancelled, with a dead letter, and may be replayed.

    Whichever instance has the job, it ends it at once, also in the middle of a download or a transcription; of a job
    that nobody has begun, its record ends so when it is read. A job whose outcome is being written is not stopped any
    more. Prints for each the id of its row, and asked or ended (already). Exit code 1 when a word names no job.

    Example: `v2td cancel 01990b6a-53c4-8d3e-9b0a-6a1f0e5d7c21`
    """
    _command("cancel", jobs, None, load(config, overrides).settings, yes=yes, json=json)


def priority(
    jobs: Jobs,
    level: Annotated[int, typer.Argument(metavar="N", min=0, max=9, help="0 is most urgent; messages have 5.")],
    *,
    yes: Yes = False,
    json: Json = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Change the priority of jobs that wait, wherever they do; of one that is not read yet, when it is read.

    Kafka's order stays: records in front of it are still read first. Prints for each the id of its row, and asked or
    ended (already). Exit code 1 when a word names no job.

    Example: `v2td priority 01990b6a-53c4-8d3e-9b0a-6a1f0e5d7c21 0`
    """
    _command("priority", jobs, level, load(config, overrides).settings, yes=yes, json=json)


def _command(kind: str, words: list[str], level: int | None, settings: Settings, *, yes: bool, json: bool) -> None:
    from v2td.store.commands import Command

    found = run_until_signal(_find(settings, words), "asking Postgres")
    for word in found.unknown:
        typer.echo(f"{printable(word)}: no such job; {CURE}", err=True)
    if len(found.open) > 1 and not yes:
        _confirm(kind, len(found.open))
    # What has ended is given, too: the audit log says that somebody tried.
    given = [Command("cancel", job) if kind == "cancel" else Command("priority", job, level) for job in found.open]
    given += [Command("cancel", job) if kind == "cancel" else Command("priority", job, level) for job in found.ended]
    if given:
        run_until_signal(_give(settings, given))
    results = [(job, "asked") for job in found.open] + [(job, "ended") for job in found.ended]
    if json:
        report = {
            "command": kind,
            "asked": len(found.open),
            "ended": len(found.ended),
            "jobs": [{"id": str(job), "result": result} for job, result in results],
            "unknown": found.unknown,
        }
        typer.echo(jsonlib.dumps(report, ensure_ascii=False))
    else:
        for job, result in results:
            typer.echo(f"{job}  {result}")
    if found.unknown:
        raise typer.Exit(1)


def _confirm(kind: str, count: int) -> None:
    """Ask before many are changed; who is not there to answer has to say --yes."""
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{count} jobs are meant: say --yes")
    typer.confirm(f"{kind.capitalize()}: {count} jobs?", abort=True, err=True)


async def _find(settings: Settings, words: list[str]) -> _Found:
    """Return which jobs the words mean; a row's id may be of a job that no table knows yet."""
    from v2td.store import commands, open_database

    ids: dict[str, UUID] = {}
    for word in words:
        with suppress(ValueError):
            if (job := UUID(word)).version == ROW_VERSION:
                ids[word] = job
    async with open_database(_alone(settings).database, "v2td commands") as database:
        called = await commands.called(database, words)
        jobs = {job for word in words for job in called.get(word, ())} | set(ids.values())
        over = await commands.ended(database, jobs)
    unknown = [word for word in dict.fromkeys(words) if word not in ids and word not in called]
    return _Found(sorted(jobs - over), sorted(over), unknown)


async def _give(settings: Settings, given: list[Command]) -> None:
    from v2td.store import commands, open_database

    async with open_database(_alone(settings).database, "v2td commands") as database:
        await commands.give_all(database, given, actor())


def _alone(settings: Settings) -> Settings:
    """Return the settings for one who needs one connection, and no more than that."""
    return settings.model_copy(update={"database": settings.database.model_copy(update={"pool_min": 0})})
