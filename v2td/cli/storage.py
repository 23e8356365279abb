"""`v2td storage`: buckets, their lifecycle rules and notifications."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from v2td.cli.options import Json
from v2td.cli.settings import Config, Overrides, load
from v2td.cli.terminal import run_until_signal

if TYPE_CHECKING:
    from v2td.ops.storage import Item

app = typer.Typer(
    no_args_is_help=True, help="Set up the bucket of transcripts, and have buckets announce new recordings."
)


@app.command()
def show(*, json: Json = False, config: Config = None, overrides: Overrides = None) -> None:
    """Compare buckets with the sections output and storage; changes nothing. Exit code 1 when something differs.

    Example: `v2td storage show`
    """
    from v2td.ops import storage

    _report(run_until_signal(storage.show(load(config, overrides).settings), "asking the object stores"), json=json)


@app.command()
def apply(*, json: Json = False, config: Config = None, overrides: Overrides = None) -> None:
    """Make the bucket, set lifecycle rules and notifications; others' rules stay. Safe to run at any time.

    Exit code 1 when the server refuses something: the rest is done all the same.

    Example: `v2td storage apply`
    """
    from v2td.ops import storage

    _report(run_until_signal(storage.apply(load(config, overrides).settings), "telling the object stores"), json=json)


def _report(items: Sequence[Item], *, json: bool) -> None:
    good = all(each.as_wanted for each in items)
    if json:
        told = [{**asdict(each), "as_wanted": each.as_wanted} for each in items]
        typer.echo(jsonlib.dumps({"as_wanted": good, "items": told}, ensure_ascii=False))
    else:
        for each in items:
            _show(each)
    raise typer.Exit(0 if good else 1)


def _show(item: Item) -> None:
    mark = "✓" if item.as_wanted else "✗"
    typer.echo(f"{mark} {item.bucket}: {item.what}: {item.found}{' (now)' if item.changed else ''}")
    if item.found != item.wanted:
        typer.echo(f"  wanted: {item.wanted}")
    if item.trouble:
        typer.echo(f"  refused: {item.trouble}")
    if item.note:
        typer.echo(f"  {item.note}")
