"""`v2td db`: the schema in Postgres."""

from __future__ import annotations

import asyncio
import json as jsonlib
from typing import TYPE_CHECKING, Annotated

import typer

from v2td.cli.options import Json
from v2td.cli.settings import Config, Overrides, load
from v2td.cli.terminal import console, run_until_signal

if TYPE_CHECKING:
    from v2td.store.search_index import IndexState

MEGABYTE = 1_000_000

app = typer.Typer(no_args_is_help=True, help="The schema in Postgres: its version, and the index for searches.")


@app.command()
def upgrade(*, json: Json = False, config: Config = None, overrides: Overrides = None) -> None:
    """Apply the migrations that the database does not have yet; safe to run at any time, by any number at once.

    Example: `v2td db upgrade`
    """
    from v2td import store

    dsn = load(config, overrides).settings.database.dsn.get_secret_value()
    with console().status("upgrading the schema"):
        applied = asyncio.run(store.upgrade(dsn))
    if json:
        typer.echo(jsonlib.dumps({"applied": list(applied), "version": store.latest_version()}))
    elif applied:
        typer.echo(f"applied {', '.join(map(str, applied))}: the schema has version {store.latest_version()}")
    else:
        typer.echo(f"the schema is up to date: version {store.latest_version()}")


@app.command()
def version(*, json: Json = False, config: Config = None, overrides: Overrides = None) -> None:
    """Print the version of the schema in the database, and the one that this v2td works with.

    Example: `v2td db version --json`
    """
    from v2td import store

    dsn = load(config, overrides).settings.database.dsn.get_secret_value()
    found, ours = asyncio.run(store.schema_version(dsn)), store.latest_version()
    typer.echo(jsonlib.dumps({"database": found, "v2td": ours}) if json else f"database: {found}, this v2td: {ours}")


@app.command("search-index")
def search_index(
    *,
    drop: Annotated[
        bool, typer.Option("--drop", help="Drop it, to have its room and the time that writes spend.")
    ] = False,
    json: Json = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Make the index that `v2td search`, the API and the page use to search what was said.

    Daemons go on meanwhile. What an interrupted making left is found and made anew. What it takes of time and room, and
    of each write, is in docs/export.md.

    Example: `v2td db search-index`, and `v2td db search-index --drop` to be rid of it.
    """
    from v2td.store import search_index as index

    dsn = load(config, overrides).settings.database.dsn.get_secret_value()
    if drop:
        there = asyncio.run(index.drop(dsn))
        typer.echo(jsonlib.dumps({"dropped": there}) if json else "dropped" if there else "there is no search index")
        return
    state = run_until_signal(_build(dsn))
    size = f"{state.size_bytes / MEGABYTE:.1f} MB"
    typer.echo(jsonlib.dumps({"size_bytes": state.size_bytes}) if json else f"the search index is there: {size}")


async def _build(dsn: str) -> IndexState:
    """Make the index with a bar that shows how far Postgres is; what is interrupted says how it goes on."""
    from v2td.cli.terminal import phases_bar
    from v2td.store import search_index as index

    with phases_bar() as progress:
        bar = progress.add_task("starting", total=None)

        def show(building: index.Building) -> None:
            progress.update(
                bar, description=building.phase, completed=building.blocks_done, total=building.blocks_total or None
            )

        try:
            return await index.build(dsn, show)
        except asyncio.CancelledError:
            typer.echo("stopped; the same command makes it anew, --drop removes what is left", err=True)
            raise
