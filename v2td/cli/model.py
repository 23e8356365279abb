"""`v2td model`: the Whisper models on this machine."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from v2td.cli.options import Json
from v2td.cli.settings import Config, Overrides, load
from v2td.cli.terminal import console, run_until_signal

if TYPE_CHECKING:
    from v2td.config import EngineSettings

MEGABYTE = 1_000_000

app = typer.Typer(no_args_is_help=True, help="Pull and list Whisper models.")


@app.command()
def pull(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="tiny, base, small, medium, large-v3, turbo…; or OWNER/NAME.")
    ],
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Download a model from the hub into the models folder; it is used as engine.model = NAME.

    Example: `v2td model pull base`
    """
    settings = load(config, overrides).settings.engine
    path = run_until_signal(_pull(name, settings))
    typer.echo(f"{path.name} is in {path}")


async def _pull(name: str, settings: EngineSettings) -> Path:
    from rich.progress import Progress, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
    from rich.text import Text

    from v2td.ops import models

    class Arrived(TextColumn):
        """What is pulled, and how much of it is here; asked whenever the line is drawn."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.description}: {models.folder_bytes(unfinished) / MEGABYTE:.0f} MB")

    unfinished = models.unfinished_folder(name, settings)
    screen = console()
    with Progress(
        SpinnerColumn(),
        Arrived(""),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
        redirect_stdout=False,
        disable=not screen.is_terminal,
    ) as progress:
        progress.add_task(f"pulling {name}", total=None)
        return await models.pull(name, settings)


@app.command(name="list")
def list_(*, json: Json = False, config: Config = None, overrides: Overrides = None) -> None:
    """List the models that are here: name, megabytes, folder.

    Example: `v2td model list --json | jq -r '.models[].name'`
    """
    from v2td.ops import models

    settings = load(config, overrides).settings.engine
    found = models.installed(settings)
    if json:
        entries = [{"name": each.name, "bytes": each.size_bytes, "path": str(each.path)} for each in found]
        typer.echo(jsonlib.dumps({"models": [*entries, {"name": "demo", "bytes": None, "path": None}]}))
        return
    for each in found:
        typer.echo(f"{each.name}\t{each.size_bytes / MEGABYTE:.0f} MB\t{each.path}")
    typer.echo("demo\tbundled with v2td: a few hundred words of English and Vietnamese")


@app.command()
def path(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="engine.model when not given.", show_default=False)
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Print the folder of a model.

    Example: `v2td model path demo`
    """
    from v2td.engine import find_model

    typer.echo(find_model(load(config, overrides, engine__model=name).settings.engine))
