"""`v2td webhooks`: who was told of ended jobs, who was not, and once more."""

from __future__ import annotations

import json as jsonlib
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from v2td.cli import acts
from v2td.cli.failures import TIME, moment, printable
from v2td.cli.options import Json
from v2td.cli.settings import Config, Overrides, load
from v2td.cli.terminal import run_until_signal

if TYPE_CHECKING:
    from v2td.config import Settings
    from v2td.store.webhooks import Selection, Stored

app = typer.Typer(no_args_is_help=True, help="Look at who is told of ended jobs, send once more, try a receiver.")


class State(StrEnum):
    """What became of a delivery so far."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


Ids = Annotated[
    list[UUID] | None,
    typer.Argument(metavar="ID", help="Ids of deliveries (webhook-id), or of jobs.", show_default=False),
]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help=f"Noted then or later: {TIME}", show_default=False)
]


@app.command(name="list")
def list_(
    ids: Ids = None,
    *,
    states: Annotated[
        list[State] | None,
        typer.Option(
            "--state",
            metavar="waiting|delivered|dead",
            help="In this state; may be repeated.",
            show_default=False,
        ),
    ] = None,
    since: Since = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The newest so many.")] = 50,
    json: Json = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """List deliveries, newest first; of URLs without their queries, which may be secret.

    Prints for each its id, when it was noted (UTC), state, attempts, event, job, URL, and the last error.

    Example: `v2td webhooks list --state dead --since 2d`
    """
    settings = load(config, overrides).settings
    found, counts = run_until_signal(_list(settings, _selection(ids, states, since), limit), "asking Postgres")
    if json:
        report = {"webhooks": [_entry(each) for each in found], "total": sum(counts.values()), "by_state": counts}
        typer.echo(jsonlib.dumps(report, ensure_ascii=False))
        return
    for each in found:
        typer.echo(_line(each))
    sums = ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
    typer.echo(sums if len(found) == sum(counts.values()) else f"{len(found)} shown of {sums}", err=True)


@app.command()
def retry(
    ids: Ids = None,
    *,
    dead: Annotated[bool, typer.Option("--dead", help="All that were given up.")] = False,
    since: Since = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Send deliveries once more, with all their attempts before them; a running daemon takes them within seconds.

    Named ones whatever their state: what was delivered goes out again, under the same webhook-id. Exit code 1 when one
    that is named is not there. The audit log says who asked.

    Example: `v2td webhooks retry --dead --since 2d --yes`
    """
    if bool(ids) == dead:
        raise typer.BadParameter("name deliveries or jobs, or say --dead for all that were given up; not both")
    settings = load(config, overrides).settings
    chosen, _ = run_until_signal(_list(settings, _selection(ids, [State.DEAD] if dead else None, since), None))
    missing = [each for each in ids or () if not any(each in (one.id, one.job) for one in chosen)]
    for each in missing:
        typer.echo(f"{each}: no such delivery", err=True)
    if dead and chosen and not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter(f"{len(chosen)} deliveries are meant: say --yes")
        typer.confirm(f"Send {len(chosen)} deliveries once more?", abort=True, err=True)
    revived = run_until_signal(_retry(settings, chosen)) if chosen else set()
    if json:
        typer.echo(jsonlib.dumps({"sent": sorted(map(str, revived)), "missing": [str(each) for each in missing]}))
    else:
        for one in sorted(revived):
            typer.echo(one)
        typer.echo(f"{len(revived)} will be sent once more", err=True)
    if missing:
        raise typer.Exit(1)


@app.command(name="test")
def try_(
    url: Annotated[
        str | None,
        typer.Argument(metavar="URL", help="Who is told; webhooks.url when not given.", show_default=False),
    ] = None,
    *,
    json: Json = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Send a signed example past the guard and say what came back; exit code 1 when it was not taken.

    Its type is transcription.test. It goes from this machine, once, and is noted nowhere.

    Example: `v2td webhooks test https://example.com/transcribed`
    """
    from v2td.ops import webhooks

    settings = load(config, overrides).settings
    target = url or settings.webhooks.url
    if target is None:
        raise typer.BadParameter("name a URL: webhooks.url is not set")
    tried = run_until_signal(webhooks.send_example(settings, target), "waiting for the receiver")
    answer = tried.answer
    if json:
        report = {"id": tried.id, "result": answer.how, "status": answer.status, "error": answer.error}
        typer.echo(jsonlib.dumps(report | {"seconds": round(tried.seconds, 3)}, ensure_ascii=False))
    else:
        said = f"the receiver answered {answer.status}" if answer.error is None else printable(answer.error)
        typer.echo(f"{answer.how}: {said} ({tried.seconds:.2f} s, webhook-id {tried.id})")
    if answer.how != "delivered":
        raise typer.Exit(1)


def _selection(ids: list[UUID] | None, states: list[State] | None, since: str | None) -> Selection:
    from v2td.store.webhooks import STATES, Selection

    when = moment(since, datetime.now(UTC), "--since")
    return Selection(tuple(ids or ()), tuple(each.value for each in states or ()) or STATES, when)


def _line(row: Stored) -> str:
    when = f"{row.created_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    parts = (str(row.id), when, row.state, str(row.attempts), row.event, str(row.job), _shown(row.url))
    return "  ".join((*parts, printable(row.last_error or ""))).rstrip()


def _entry(row: Stored) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "job": str(row.job),
        "revision": row.revision,
        "event": row.event,
        "url": _shown(row.url),
        "state": row.state,
        "attempts": row.attempts,
        "next_at": row.next_at.isoformat() if row.state == State.WAITING else None,
        "last_error": row.last_error,
        "created_at": row.created_at.isoformat(),
        "ended_at": row.ended_at.isoformat() if row.ended_at else None,
    }


def _shown(url: str) -> str:
    from v2td.messages import without_secrets

    return printable(without_secrets(url))


async def _list(settings: Settings, selection: Selection, limit: int | None) -> tuple[list[Stored], dict[str, int]]:
    from v2td.store import open_database, webhooks

    async with open_database(settings.database, "v2td webhooks") as database:
        found = await webhooks.find(database, selection, limit)
        return found, await webhooks.count(database, selection)


async def _retry(settings: Settings, chosen: list[Stored]) -> set[UUID]:
    from v2td.store import open_database, webhooks

    revived: set[UUID] = set()

    def done() -> dict[str, Any]:
        jobs = {each.job for each in chosen if each.id in revived}
        return {"webhooks": acts.named(sorted(revived)), "sent": len(revived), "jobs": acts.named(sorted(jobs))}

    async with acts.audited(settings, "webhooks retry", done), open_database(settings.database) as database:
        revived |= await webhooks.revive(database, [each.id for each in chosen])
    return revived
