"""`v2td audit`: who changed what."""

from __future__ import annotations

import json as jsonlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from v2td.cli.failures import TIME, moment, printable
from v2td.cli.options import Json
from v2td.cli.settings import Config, Overrides, load
from v2td.cli.terminal import run_until_signal

if TYPE_CHECKING:
    from v2td.config import Settings
    from v2td.store.audit import Entry

app = typer.Typer(no_args_is_help=True, help="Who cancelled, paused, replayed or changed something else.")


@app.command(name="list")
def list_(
    *,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help=f"Then or later: {TIME}", show_default=False)
    ] = None,
    before: Annotated[
        int | None, typer.Option("--before", metavar="ID", help="Older than this entry.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The newest so many.")] = 50,
    json: Json = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """List what people changed, newest first: by commands, the API and the page.

    Prints for each its id, when (UTC), who, what, the job or instance (- for the group, or for several jobs), details,
    and why it was not done, if it was not.

    Example: `v2td audit list --since 1d`
    """
    settings = load(config, overrides).settings
    found = run_until_signal(
        _list(settings, before, moment(since, datetime.now(UTC), "--since"), limit), "asking Postgres"
    )
    if json:
        entries = [
            {
                "id": each.id,
                "at": each.at.astimezone(UTC).isoformat(),
                "actor": each.actor,
                "action": each.action,
                "target": each.target,
                "details": each.details,
                "error": each.error,
            }
            for each in found
        ]
        typer.echo(jsonlib.dumps({"entries": entries}, ensure_ascii=False))
        return
    for each in found:
        typer.echo(_line(each))


def _line(entry: Entry) -> str:
    details = jsonlib.dumps(entry.details, ensure_ascii=False)
    when = f"{entry.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    parts = [str(entry.id), when, entry.actor, entry.action, entry.target or "-", details]
    if entry.error is not None:
        parts.append(f"not done: {entry.error}")
    return "  ".join(map(printable, parts))


async def _list(settings: Settings, before: int | None, since: datetime | None, limit: int) -> list[Entry]:
    from v2td.store import audit, open_database

    async with open_database(settings.database, "v2td audit", read_only=True) as database:
        return await audit.entries(database, before=before, since=since, limit=limit)
