"""The command `v2td` and what all its subcommands have in common: errors, `--version`, shell completion."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from v2td import __version__
from v2td.cli import (
    audit,
    cache,
    check,
    commands,
    db,
    debug,
    demo,
    dlq,
    export,
    intake,
    model,
    redo,
    route,
    run,
    schema,
    search,
    show,
    storage,
    submit,
    top,
    transcribe,
    webhooks,
)
from v2td.errors import ServiceError, first_of

EXIT_CODES = "Exit codes: 0 done, 1 not done (`error: …` says why), 2 wrong usage, 130 interrupted."


class Commands(TyperGroup):
    """Tells our errors in one line and exit code 1; a bug keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand; what goes wrong in a TaskGroup comes in a group."""
        trouble: BaseException = typer.Exit(1)
        try:
            return super().invoke(ctx)
        except* ServiceError as group:
            sys.stderr.write(f"error: {first_of(group)}\n")
        except* BrokenPipeError as group:
            trouble = first_of(group)  # alone, typer knows what to do with it
        raise trouble


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",  # paragraphs flow, whatever the width
    pretty_exceptions_enable=False,  # its tracebacks show local variables, and so secrets
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`v2td COMMAND --help` says more. Settings come from config.toml, variables V2TD_SECTION__KEY and --set.",
)
app.command(rich_help_panel="The service")(run.run)
app.command(rich_help_panel="The service")(check.check)
app.command(rich_help_panel="The service")(top.top)
app.command(rich_help_panel="To try it")(demo.demo)
app.command(rich_help_panel="To try it")(transcribe.transcribe)
app.command(rich_help_panel="The service")(route.route)
app.add_typer(cache.app, name="cache", rich_help_panel="The service")
app.add_typer(debug.app, name="debug", rich_help_panel="The service")
app.add_typer(db.app, name="db", rich_help_panel="The service")
app.add_typer(model.app, name="model", rich_help_panel="The service")
app.add_typer(storage.app, name="storage", rich_help_panel="The service")
app.command(rich_help_panel="Jobs")(submit.submit)
app.add_typer(dlq.app, name="dlq", rich_help_panel="Jobs")
app.command(rich_help_panel="Jobs")(redo.redo)
app.command(rich_help_panel="Jobs")(commands.cancel)
app.command(rich_help_panel="Jobs")(commands.priority)
app.command(rich_help_panel="The service")(intake.pause)
app.command(rich_help_panel="The service")(intake.resume)
app.add_typer(audit.app, name="audit", rich_help_panel="The service")
app.command(rich_help_panel="Results")(export.export)
app.command(rich_help_panel="Results")(search.search)
app.command(rich_help_panel="Results")(show.show)
app.add_typer(webhooks.app, name="webhooks", rich_help_panel="Jobs")
app.add_typer(schema.app, name="schema", rich_help_panel="Jobs")


def _tell_exit_codes(of: typer.Typer) -> None:
    """Let each command's help end with what its exit codes mean."""
    for command in of.registered_commands:
        command.epilog = command.epilog or EXIT_CODES
    for group in of.registered_groups:
        if group.typer_instance is not None:
            _tell_exit_codes(group.typer_instance)


_tell_exit_codes(app)


def _version(on: bool) -> None:
    if on:
        typer.echo(f"v2td {__version__}")
        raise typer.Exit


@app.callback()
def v2td(
    version: Annotated[  # noqa: ARG001 (its callback does the work)
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_version),
    ] = False,
) -> None:
    """Recordings named in Kafka become transcripts in Postgres, as fast as the hardware allows, without losing one."""
    from v2td import logs

    logs.configure("warning")  # of the libraries too; commands that are to say more, or less, say so
