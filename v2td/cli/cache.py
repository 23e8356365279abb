"""`v2td cache`: the recordings that are kept on disk."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Annotated

import typer

from v2td.cli.options import Json
from v2td.cli.settings import Config, Overrides, load

if TYPE_CHECKING:
    from v2td.ops.cache import CacheState

MEGABYTE = 1_000_000

app = typer.Typer(no_args_is_help=True, help="Look at the recordings that are kept on disk, or delete them.")


@app.command()
def info(*, json: Json = False, config: Config = None, overrides: Overrides = None) -> None:
    """Say how many recordings are kept, how large they are, and where.

    How often they are of use is among the metrics: v2td_file_cache_total.

    Example: `v2td cache info`
    """
    from v2td.ops import cache

    state = cache.look(load(config, overrides).settings)
    if json:
        typer.echo(jsonlib.dumps(_entry(state)))
        return
    bound = f"of {state.max_bytes / MEGABYTE:.0f} MB" if state.max_bytes else "off: set cache.file_bytes"
    typer.echo(f"{state.folder}: {_amount(state)} ({bound})")


@app.command()
def clear(
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Delete the recordings that are kept; daemons may run meanwhile, and jobs keep what they have.

    Results of earlier jobs are not touched: they are rows, and entries in Redis that end by themselves.

    Example: `v2td cache clear --yes`
    """
    from v2td.ops import cache

    settings = load(config, overrides).settings
    if not yes:
        state = cache.look(settings)
        typer.confirm(f"Delete {_amount(state)} in {state.folder}?", abort=True, err=True)
    state = cache.clear(settings)
    if json:
        typer.echo(jsonlib.dumps(_entry(state)))
        return
    typer.echo(f"{state.folder}: {_amount(state)} deleted")


def _amount(state: CacheState) -> str:
    recordings = "1 recording" if state.files == 1 else f"{state.files} recordings"
    return f"{recordings}, {state.size_bytes / MEGABYTE:.1f} MB"


def _entry(state: CacheState) -> dict[str, str | int]:
    return {
        "folder": str(state.folder),
        "files": state.files,
        "bytes": state.size_bytes,
        "max_bytes": state.max_bytes,
    }
