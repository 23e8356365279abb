"""`v2td export`: transcripts as files."""

from __future__ import annotations

import asyncio
import json as jsonlib
import sys
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from v2td.cli.failures import moment, printable
from v2td.cli.options import Formats, Json, chosen_formats
from v2td.cli.search import Language, Since, Until
from v2td.cli.settings import Config, Overrides, load
from v2td.cli.terminal import counting_bar, run_until_signal

if TYPE_CHECKING:
    from v2td.config import Format, Settings
    from v2td.ops.export import Exported, How, Wanted

STDOUT = "-"


def export(
    jobs: Annotated[
        list[str] | None,
        typer.Argument(metavar="JOB", help="Ids of rows, or the messages' own ids.", show_default=False),
    ] = None,
    *,
    output_dir: Annotated[
        str, typer.Option("--output-dir", "-o", metavar="FOLDER", help="Where the files go; - is stdout, for one JOB.")
    ],
    formats: Formats = None,
    since: Since = None,
    until: Until = None,
    language: Language = None,
    query: Annotated[
        str | None,
        typer.Option("--query", metavar="WORDS", help="Only who says it: as `v2td search`.", show_default=False),
    ] = None,
    name: Annotated[
        Literal["id", "job_id"],
        typer.Option("--name", help="What files are named by: the row's id, or the message's own and the row's."),
    ] = "id",
    max_line: Annotated[int, typer.Option("--max-line", min=20, max=200, help="Columns of a subtitle's line.")] = 42,
    max_lines: Annotated[int, typer.Option("--max-lines", min=1, max=4, help="Lines of a subtitle.")] = 2,
    force: Annotated[bool, typer.Option("--force", help="Write again what is there already.")] = False,
    json: Json = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Write transcripts as files, each one whole or not at all; run again, it goes on.

    The newest revision of each: of all, of certain JOBs, or of those that fit --since, --until, --language and --query.
    Subtitles obey reading rules: lines of 42 columns, two of them, up to 7 seconds. What is there already, of the same
    revision, is left alone. Exit code 1 when a JOB was not found, is ambiguous or failed.

    Examples: `v2td export --since 7d --format srt --format txt --output-dir week`,
    `v2td export call-17 --format md --output-dir -`.
    """
    from v2td.ops.export import How, Wanted
    from v2td.store.exports import Selection
    from v2td.store.search import InvalidSearchError
    from v2td.subtitles import Rules

    if jobs and any(each is not None for each in (since, until, language, query)):
        raise typer.BadParameter("name JOBs, or say which by --since, --until, --language and --query")
    chosen = tuple(cast("list[Format]", chosen_formats(formats)))
    if output_dir == STDOUT and (len(jobs or ()) != 1 or len(chosen) != 1 or json):
        raise typer.BadParameter("stdout takes one JOB in one --format, without --json", param_hint="--output-dir")
    settings = load(config, overrides).settings
    now = datetime.now(UTC)
    selection = Selection(moment(since, now, "--since"), moment(until, now, "--until"), language)
    wanted = Wanted(tuple(jobs or ()), selection, query)
    how = How(chosen, Rules(max_line=max_line, max_lines=max_lines), name)
    work = (
        _to_stdout(settings, wanted, how)
        if output_dir == STDOUT
        else _to_folder(settings, wanted, how, Path(output_dir), force=force)
    )
    try:
        exported = run_until_signal(work)
    except InvalidSearchError as error:
        raise typer.BadParameter(str(error), param_hint="--query") from None
    for job, why in exported.troubles:
        typer.echo(f"{printable(job)}: {printable(why)}", err=True)
    if json:
        typer.echo(jsonlib.dumps(_entry(exported, output_dir), ensure_ascii=False))
    elif output_dir != STDOUT:
        typer.echo(f"{exported.written} written ({exported.files} files), {exported.there} were there", err=True)
    if exported.troubles:
        raise typer.Exit(1)


async def _to_folder(settings: Settings, wanted: Wanted, how: How, folder: Path, *, force: bool) -> Exported:
    from v2td.ops.export import open_exporter

    async with open_exporter(settings, wanted) as exporter:
        with counting_bar() as progress:
            bar = progress.add_task("exporting", total=exporter.total)
            try:
                await exporter.to_folder(folder, how, force=force, on_done=lambda: progress.advance(bar))
            except asyncio.CancelledError:
                done = exporter.exported.written + exporter.exported.there
                typer.echo(
                    f"stopped after {done} of {exporter.total}: no file is half there, and the same command goes on"
                    + (" (without --force)" if force else ""),
                    err=True,
                )
                raise
        return exporter.exported


async def _to_stdout(settings: Settings, wanted: Wanted, how: How) -> Exported:
    from v2td.ops.export import open_exporter

    async with open_exporter(settings, wanted) as exporter:
        async with aclosing(exporter.texts(how)) as texts:
            async for text in texts:
                # A file holds what was said as it is; a terminal would obey it.
                typer.echo("\n".join(map(printable, text.split("\n"))) if sys.stdout.isatty() else text, nl=False)
        return exporter.exported


def _entry(exported: Exported, folder: str) -> dict[str, object]:
    return {
        "folder": folder,
        "written": exported.written,
        "there": exported.there,
        "files": exported.files,
        "bytes": exported.bytes,
        "troubles": [{"job": job, "reason": why} for job, why in exported.troubles],
    }
