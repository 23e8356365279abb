"""`v2td schema`: the formats that others build on."""

from __future__ import annotations

import json

import typer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def schema() -> None:
    """Print the JSON Schemas that producers can check against."""


@app.command()
def message() -> None:
    """Print the JSON Schema (draft 2020-12) of a job message.

    Example: `v2td schema message > job.schema.json`
    """
    from v2td.messages import message_schema

    typer.echo(json.dumps(message_schema(), indent=2, ensure_ascii=False))
