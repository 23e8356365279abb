"""`v2td debug`: what a bug report needs."""

from __future__ import annotations

import json as jsonlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from v2td.cli.options import Json
from v2td.cli.settings import Config, Overrides, load
from v2td.cli.terminal import console, run_until_signal

if TYPE_CHECKING:
    from v2td.config import LoadedConfig
    from v2td.ops.bundle import Part

app = typer.Typer(no_args_is_help=True, help="Gather what a bug report needs.")


@app.callback()
def debug() -> None:
    """Gather what a bug report needs."""


@app.command()
def bundle(
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The archive.  [default: v2td-debug-DATE.tar.gz, here]"),
    ] = None,
    admin: Annotated[
        str | None,
        typer.Option(
            "--admin",
            metavar="URL",
            help="The daemon's admin endpoint, or unix:/its/socket; else where the configuration says.",
        ),
    ] = None,
    json: Json = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Make one archive to attach to a bug report: no secrets, no texts, no URLs of recordings.

    It holds the settings without secrets, versions, checks, facts of the machine, the daemon's state, metrics, tasks,
    slots and loop, the last lines of the journal, versions and sizes of tables, and where the group stands in Kafka.
    What cannot be had is named, and the rest is made all the same. Look into it before you send it.

    Example: `sudo v2td debug bundle --output bundle.tar.gz`
    """
    loaded = load(config, overrides)
    file = output or Path(f"v2td-debug-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar.gz")
    parts = run_until_signal(_make(loaded, admin, file))
    missing = [each for each in parts if each.error is not None]
    if json:
        told = {each.name: each.error for each in missing}
        typer.echo(jsonlib.dumps({"file": str(file), "parts": len(parts) - len(missing), "missing": told}))
        return
    for each in missing:
        typer.echo(f"not in it: {each.name}: {each.error}", err=True)
    typer.echo(f"{file}: {len(parts) - len(missing)} parts of {len(parts)}; look into it before you send it")


async def _make(loaded: LoadedConfig, admin: str | None, file: Path) -> list[Part]:
    from v2td import logs
    from v2td.errors import ServiceError
    from v2td.ops.bundle import make
    from v2td.ops.top_admin import usual_address

    logs.configure("critical")  # what the libraries say of a broker that is away is told as a part that is missing
    with console().status("gathering") as status:
        try:
            return await make(
                loaded, admin or usual_address(loaded.settings.admin), file, lambda name: status.update(f"have {name}")
            )
        except OSError as error:
            hint = "name another file with --output"
            raise ServiceError("write the bundle", f"{file}: {error.strerror or error}", hint) from error
