"""The demo's last words: what was heard, what failed and why, and where to look further."""

from __future__ import annotations

import shutil
import sys
from textwrap import shorten

from rich.console import Console
from rich.table import Table
from rich.text import Text

from v2td.demo.session import Session
from v2td.demo.verdict import Results

TEXT_LENGTH = 140  # characters of a transcript in the table; the row has it all


def print_results(results: Results, console: Console) -> None:
    """A table of the transcripts, one of the failures, a line of totals, and what should have gone otherwise."""
    console.print(_heard(results))
    console.print(_failed(results))
    summary = results.summary()
    if results.transcribed:
        console.print(
            f"{summary['audio_seconds']:.0f} s of audio in {results.wall_seconds:.1f} s, "
            f"word error rate {summary['word_error_rate']:.1%}."
        )
    for result in results.results:
        if result.problem:
            console.print(Text(f"Not as it should be: {result.job.name}: {result.problem}", style="bold red"))


def print_where_to_look(session: Session, console: Console) -> None:
    """Commands and addresses that work while the demo is up."""
    query = "SELECT job_id, language, left(text, 80) FROM transcriptions"
    console.print("Where to look further, while the demo is up:")
    for what, where in (
        ("rows", f'{session.psql} -c "{query}"'),
        ("metrics", f"{session.admin_url}/metrics"),
        ("status", f"{session.admin_url}/status"),
        ("config", str(session.config)),
        ("log", str(session.log)),
        ("broker", session.bootstrap_servers),
    ):
        # Not wrapped by us: what is copied from a terminal must still be one line.
        console.print(Text.assemble((f"  {what:<8} ", "bold"), where), soft_wrap=True)


def print_how_to_play(session: Session, console: Console) -> None:
    """How to submit a job of one's own."""
    v2td = shutil.which("v2td") or f"{sys.executable} -m v2td"
    command = f"{v2td} submit --config {session.config} {session.audio_url}/en-01.flac"
    console.print("Submit jobs from another terminal (the demo model knows only sentences like these):")
    console.print(Text(f"  {command}"), soft_wrap=True)


def _heard(results: Results) -> Table:
    table = Table(title="Transcribed", title_justify="left")
    for column in ("recording", "language", "seconds", "took"):
        table.add_column(column, no_wrap=True, justify="right" if column in ("seconds", "took") else "left")
    table.add_column("text")
    for result, heard in results.transcribed:
        table.add_row(
            result.job.name,
            heard.language,
            f"{heard.audio_seconds:.1f}",
            f"{heard.seconds_taken:.1f} s",
            Text(shorten(heard.text, TEXT_LENGTH, placeholder=" …")),
        )
    return table


def _failed(results: Results) -> Table:
    table = Table(title="Failed, with a row in failures and a dead letter", title_justify="left")
    for column in ("job", "class", "dead letter", "reason"):
        table.add_column(column)
    for result, refused in results.failed:
        table.add_row(result.job.name, refused.error_class, "yes" if result.dead_letter else "no", Text(refused.reason))
    return table
