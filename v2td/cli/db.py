"""`v2td db`: the schema in Postgres."""

from __future__ import annotations

import asyncio

import typer

from v2td.cli.settings import Config, Overrides, load

app = typer.Typer(no_args_is_help=True, help="Bring the schema in Postgres up to date, or show its version.")


@app.command()
def upgrade(config: Config = None, overrides: Overrides = None) -> None:
    """Apply the migrations that the database does not have yet; safe to run at any time, by any number at once."""
    from v2td import store

    dsn = load(config, overrides).settings.database.dsn.get_secret_value()
    applied = asyncio.run(store.upgrade(dsn))
    if applied:
        typer.echo(f"applied {', '.join(map(str, applied))}: the schema has version {store.latest_version()}")
    else:
        typer.echo(f"the schema is up to date: version {store.latest_version()}")


@app.command()
def version(config: Config = None, overrides: Overrides = None) -> None:
    """Print the version of the schema in the database, and the one that this v2td works with."""
    from v2td import store

    dsn = load(config, overrides).settings.database.dsn.get_secret_value()
    typer.echo(f"database: {asyncio.run(store.schema_version(dsn))}, this v2td: {store.latest_version()}")
