"""`v2td db`: the schema in Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

app = typer.Typer(no_args_is_help=True, help="Bring the schema in Postgres up to date, or show its version.")

Result = TypeVar("Result")
Config = Annotated[
    Path | None, typer.Option("--config", help="config.toml; the usual places when not given.", show_default=False)
]


@app.command()
def upgrade(config: Config = None) -> None:
    """Apply the migrations that the database does not have yet; safe to run at any time, by any number at once."""
    from v2td import store

    applied = _run(store.upgrade(_dsn(config)))
    if applied:
        typer.echo(f"applied {', '.join(map(str, applied))}: the schema has version {store.latest_version()}")
    else:
        typer.echo(f"the schema is up to date: version {store.latest_version()}")


@app.command()
def version(config: Config = None) -> None:
    """Print the version of the schema in the database, and the one that this v2td works with."""
    from v2td import store

    typer.echo(f"database: {_run(store.schema_version(_dsn(config)))}, this v2td: {store.latest_version()}")


def _dsn(config: Path | None) -> str:
    from v2td.config import load
    from v2td.errors import ConfigError

    try:
        return load(config).settings.database.dsn.get_secret_value()
    except ConfigError as error:
        raise _failed(error) from None


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    from v2td.errors import ServiceError

    try:
        return asyncio.run(work)
    except ServiceError as error:
        raise _failed(error) from None


def _failed(error: Exception) -> typer.Exit:
    typer.echo(f"error: {error}", err=True)
    return typer.Exit(1)
