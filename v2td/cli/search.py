"""`v2td search`: where it was said."""

from __future__ import annotations

import json as jsonlib
from contextlib import aclosing
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from v2td.cli.failures import TIME, moment, printable
from v2td.cli.options import Json
from v2td.cli.settings import Config, Overrides, load
from v2td.cli.terminal import console, run_until_signal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from v2td.config import Settings
    from v2td.ops.search import Asked
    from v2td.store.search import Match, Passage

Language = Annotated[
    str | None,
    typer.Option("--language", "-l", metavar="CODE", help="Only transcripts in it (en, vi, …).", show_default=False),
]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help=f"Transcribed then or later: {TIME}", show_default=False)
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Transcribed before: as --since.", show_default=False)
]


def search(
    words: Annotated[list[str], typer.Argument(metavar="WORDS", help='All of them; "these together"; or; -without.')],
    *,
    language: Language = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The newest so many transcripts.")] = 20,
    json: Json = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Search what was said, newest transcripts first, and show who says it where in the recording.

    Each transcript is searched by the rules of its language: *trains* finds *train* in English. Words typed without
    accents find those with them. Exit code 1 when nothing is found.

    Examples: `v2td search train late`, `v2td search '"good morning" -evening' --language en --since 7d`,
    `v2td search xin chao --json | jq -r '.matches[].id'`.
    """
    from v2td.ops.search import Asked
    from v2td.store.search import InvalidSearchError

    settings = load(config, overrides).settings
    now = datetime.now(UTC)
    asked = Asked(" ".join(words), language, moment(since, now, "--since"), moment(until, now, "--until"))
    try:
        matches = run_until_signal(_found(settings, asked, limit), "searching")
    except InvalidSearchError as error:
        raise typer.BadParameter(str(error), param_hint="WORDS") from None
    if json:
        typer.echo(jsonlib.dumps({"matches": [_entry(each) for each in matches]}, ensure_ascii=False))
    else:
        screen = console(stderr=False)
        for match in matches:
            _show(screen, match)
        if not matches:
            typer.echo("nobody says it", err=True)
    if not matches:
        raise typer.Exit(1)


async def _found(settings: Settings, asked: Asked, limit: int) -> list[Match]:
    from v2td.ops.search import found

    async with aclosing(found(settings, asked, limit)) as matches:
        return [each async for each in matches]


def _show(screen: Console, match: Match) -> None:
    from rich.text import Text

    when = f"{match.created_at.astimezone(UTC):%Y-%m-%d %H:%M}"
    parts = (str(match.id), when, match.language or "-", match.job_id or "-", match.audio_url)
    screen.print(Text("  ".join(map(printable, parts)), style="bold"), soft_wrap=True)
    for passage in match.passages:
        screen.print(_line(passage), soft_wrap=True)


def _line(passage: Passage) -> Text:
    """Return a passage in one line: on a terminal its words are bold, elsewhere it is plain."""
    from rich.text import Text

    minutes, seconds = divmod(int(passage.start_seconds), 60)
    channel = "" if passage.channel is None else f" [channel {passage.channel}]"
    line = Text(f"    {minutes:02d}:{seconds:02d}{channel} ")
    done = 0
    for start, end in passage.marks:
        line.append(printable(passage.text[done:start].lstrip() if not done else passage.text[done:start]))
        line.append(printable(passage.text[start:end]), style="bold yellow")
        done = end
    line.append(printable(passage.text[done:].rstrip()))
    return line


def _entry(match: Match) -> dict[str, Any]:
    return asdict(match) | {"id": str(match.id), "created_at": match.created_at.astimezone(UTC).isoformat()}
