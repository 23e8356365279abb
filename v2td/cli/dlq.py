"""`v2td dlq`: the jobs that failed."""

from __future__ import annotations

import json as jsonlib
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import aclosing, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from v2td.cli import failures
from v2td.cli.acts import audited, named
from v2td.cli.failures import AtMost, Classes, Jobs, Since, State, States, Topics, Until
from v2td.cli.options import Json
from v2td.cli.settings import Config, Overrides, load
from v2td.cli.terminal import counting_bar, run_until_signal
from v2td.errors import ServiceError

if TYPE_CHECKING:
    from uuid import UUID

    from v2td.config import Settings
    from v2td.dead_letters import Replayed
    from v2td.store import StoredFailure
    from v2td.store.ledger import FailedRecord, Selection

WHICH = "name the jobs, or say which ones by --class, --since, --until, --topic or --state"

app = typer.Typer(no_args_is_help=True, help="List, show, replay and drop the jobs that failed.")

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


@app.command(name="list")
def list_(
    jobs: Jobs = None,
    *,
    classes: Classes = None,
    since: Since = None,
    until: Until = None,
    topics: Topics = None,
    states: States = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The newest so many.")] = 50,
    json: Json = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """List failures, newest first; dropped ones are hidden unless --state dropped is given.

    Prints for each the id of its row, when it failed (UTC), class, topic/partition/offset, state and reason.

    Example: `v2td dlq list --class timeout --since 1d`
    """
    settings = load(config, overrides).settings
    selection = failures.selection(jobs, classes, since, until, topics=topics, states=states)
    found, counts = run_until_signal(_list(settings, selection, limit), "asking Postgres")
    total = sum(counts.values())
    if json:
        report = {"failures": [failures.entry(each) for each in found], "total": total, "by_class": counts}
        typer.echo(jsonlib.dumps(report, ensure_ascii=False))
        return
    for each in found:
        typer.echo(failures.line(each))
    sums = ", ".join(f"{count} {name}" for name, count in counts.items())
    shown = f"{len(found)} of {total}" if len(found) < total else str(total)
    typer.echo(f"{shown} failed{': ' if sums else ''}{sums}", err=True)


@app.command()
def show(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of its row, or the message's own id.")],
    *,
    json: Json = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Show a failure, dropped or not, and its record, of which the row keeps 64 KiB.

    Of a message's own id that several share, all are shown.

    Example: `v2td dlq show call-17`
    """
    found = run_until_signal(_show(load(config, overrides).settings, job), "asking Postgres")
    if not found:
        raise ServiceError(f"show {failures.printable(job)}", "there is no such failure", "see v2td dlq list")
    if json:
        report = {"failures": [failures.whole_entry(each) for each in found]}
        typer.echo(jsonlib.dumps(report, ensure_ascii=False))
    else:
        typer.echo("\n".join(failures.told(each) for each in found), nl=False)


@app.command()
def replay(
    jobs: Jobs = None,
    *,
    classes: Classes = None,
    since: Since = None,
    until: Until = None,
    topics: Topics = None,
    states: States = None,
    limit: AtMost = None,
    again: Annotated[
        bool, typer.Option("--again", help="Those that were asked for before too; they are done once all the same.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Do failed jobs again: their records are sent to their topics once more.

    What comes of it takes the failure's place, under the same id. Where the row keeps only the beginning of a record,
    the dead-letter topic is looked through for the rest. Prints for each the id of its row, sent, left (alone) or
    refused, and where its record went, or why it did not. Exit code 1 when one was refused or not found.

    Example: `v2td dlq replay --class timeout --since 1d --dry-run`
    """
    settings = load(config, overrides).settings
    selection = failures.selection(jobs, classes, since, until, topics=topics, states=states)
    chosen = _chosen(settings, selection, limit, filtered=bool(classes or since or until or topics or states))
    _confirm(f"Send {len(chosen)} jobs once more?", chosen, asked=not (jobs or yes or dry_run))
    ids = [each.id for each in chosen]
    done = run_until_signal(_replay(settings, ids, again=again, dry_run=dry_run, json=json)) if ids else []
    counts = Counter(each.result.value for each in done)
    if json:
        report = [{"id": str(each.id), "result": each.result.value, "detail": each.told} for each in done]
        sums = {name: counts[name] for name in ("sent", "left", "refused")}
        typer.echo(jsonlib.dumps({"dry_run": dry_run, **sums, "failures": report}, ensure_ascii=False))
    else:
        sent = "would be sent" if dry_run else "sent"
        typer.echo(f"{counts['sent']} {sent}, {counts['left']} left alone, {counts['refused']} refused", err=True)
    if counts["refused"] or _unmatched(selection, chosen):
        raise typer.Exit(1)


@app.command()
def drop(
    jobs: Jobs = None,
    *,
    classes: Classes = None,
    since: Since = None,
    until: Until = None,
    topics: Topics = None,
    states: States = None,
    limit: AtMost = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Give failed jobs up: their rows stay, without the records, and are hidden.

    Those that are to be replayed are left alone unless --state requested is given: if their record is on its way, it
    would become a job of its own. Exit code 1 when one was not found.

    Example: `v2td dlq drop --class not_audio --until 30d --yes`
    """
    settings = load(config, overrides).settings
    selection = failures.selection(jobs, classes, since, until, topics=topics, states=states)
    chosen = _chosen(settings, selection, limit, filtered=bool(classes or since or until or topics or states))
    to_drop = [each for each in chosen if states or failures.state(each) is State.FAILED]
    _confirm(f"Drop {len(to_drop)} failed jobs?", to_drop, asked=not (jobs or yes or dry_run))
    if to_drop and not dry_run:
        dropped = run_until_signal(_drop(settings, to_drop), "dropping")
        to_drop = [each for each in to_drop if each.id in dropped]
    left = len(chosen) - len(to_drop)
    if json:
        ids = [str(each.id) for each in to_drop]
        typer.echo(jsonlib.dumps({"dry_run": dry_run, "dropped": len(ids), "left": left, "ids": ids}))
    else:
        verb = "would be dropped" if dry_run else "dropped"
        for each in to_drop:
            typer.echo(f"{each.id}  {verb}")
        typer.echo(f"{len(to_drop)} {verb}, {left} left alone", err=True)
    if _unmatched(selection, chosen):
        raise typer.Exit(1)


def _chosen(settings: Settings, selection: Selection, limit: int | None, *, filtered: bool) -> list[StoredFailure]:
    """Return the failures that are to be changed, and say which of the named ones are not there."""
    if not (selection.jobs or filtered):
        raise typer.BadParameter(WHICH)
    chosen, _ = run_until_signal(_list(settings, selection, limit, primary=True))
    for job in _unmatched(selection, chosen):
        typer.echo(f"{failures.printable(job)}: no such failure; dropped ones are found by --state dropped", err=True)
    return chosen


def _unmatched(selection: Selection, chosen: Iterable[StoredFailure]) -> list[str]:
    names = {name for each in chosen for name in (str(each.id), each.job_id)}
    return [job for job in selection.jobs if names.isdisjoint((job, job.lower()))]


def _confirm(question: str, chosen: Sequence[StoredFailure], *, asked: bool) -> None:
    """Ask before many are changed; who is not there to answer has to say --yes."""
    if not asked or len(chosen) <= 1:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{len(chosen)} failures are meant: say --yes, or look at them by --dry-run")
    typer.confirm(question, abort=True, err=True)


async def _list(
    settings: Settings, selection: Selection, limit: int | None, *, primary: bool = False
) -> tuple[list[StoredFailure], dict[str, int]]:
    from v2td.store import ledger, open_database

    async with open_database(settings.database, "v2td dlq", read_only=not primary) as database:
        found = await ledger.failures(database, selection, limit)
        return found, await ledger.count_by_class(database, selection)


async def _show(settings: Settings, job: str) -> list[FailedRecord]:
    from v2td.store import ledger, open_database

    async with open_database(settings.database, "v2td dlq", read_only=True) as database:
        found = await ledger.failures(database, ledger.Selection(jobs=(job,), states=ledger.STATES))
        return await ledger.failed_records(database, [each.id for each in found])


async def _drop(settings: Settings, chosen: list[StoredFailure]) -> set[UUID]:
    from v2td.store import ledger, open_database

    states = {failures.state(each).value for each in chosen}
    dropped: set[UUID] = set()
    async with (
        audited(settings, "drop", lambda: {"dropped": len(dropped), "jobs": named(dropped)}),
        open_database(settings.database, "v2td dlq") as database,
    ):
        dropped |= await ledger.drop(database, [each.id for each in chosen], tuple(states))
    return dropped


async def _replay(settings: Settings, ids: list[UUID], *, again: bool, dry_run: bool, json: bool) -> list[Replayed]:
    from v2td.dead_letters import open_replayer

    done: list[Replayed] = []

    def what() -> dict[str, Any]:
        return {**Counter(each.result.value for each in done), "jobs": named(each.id for each in done)}

    with counting_bar() as progress:
        bar = progress.add_task("replaying", total=len(ids))
        async with (
            nullcontext() if dry_run else audited(settings, "replay", what),
            open_replayer(settings, again=again, dry_run=dry_run) as replayer,
            aclosing(replayer.replay(ids)) as results,
        ):
            async for each in results:
                done.append(each)
                progress.advance(bar)
                if not json:
                    typer.echo(f"{each.id}  {each.result}  {failures.printable(each.told)}")
    return done
