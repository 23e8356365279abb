"""`v2td show`: everything known about a job."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from v2td.cli.failures import printable, told, whole_entry
from v2td.cli.options import Json
from v2td.cli.settings import Config, Overrides, load
from v2td.cli.terminal import console, run_until_signal

if TYPE_CHECKING:
    from v2td.config import Settings
    from v2td.ops.show import Candidate, Shown
    from v2td.store import StoredSegment, StoredTranscription

FIRST_SEGMENTS = 5
MOST_COLUMNS = 120  # of the waterfall
PIPE_COLUMNS = 80
_TOLD_APART = ("text", "timings", "metadata", "route", "request")  # columns that have sections of their own
_TITLES = {
    "submissions": "Submitted by the API",
    "redos": "To be done again",
    "replays": "Replayed by",
    "commands": "Commands",
    "audit": "Who did what",
    "webhooks": "Webhooks",
    "windows": "Windows finished so far",
    "deaths": "Child processes that died of it",
}


def show(
    job: Annotated[str, typer.Argument(metavar="JOB", help="A row's id, or the message's own.")],
    *,
    text: Annotated[bool, typer.Option("--text", help="All of what was said, not its beginning only.")] = False,
    json: Json = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Show everything known about a job: row, revisions, failure, where its record is, who was told, its waterfall.

    Also of one that has not ended, as far as the tables know of it: what the daemon knows beyond that is in its page.
    Exit code 1 when there is no such job, or several have this id: then they are listed.

    Examples: `v2td show call-17`, `v2td show 0192f3a4-… --json | jq .timings`.
    """
    from v2td.ops.show import Shown, look_up

    settings = load(config, overrides).settings
    found = run_until_signal(look_up(settings, job), "asking Postgres")
    if not isinstance(found, Shown):
        _choose(job, found, json=json)
        raise typer.Exit(1)
    if json:
        typer.echo(jsonlib.dumps(_entry(found, settings), ensure_ascii=False, default=_plain))
        return
    screen = console(stderr=False)
    columns = min(screen.width, MOST_COLUMNS) if screen.is_terminal else PIPE_COLUMNS
    for title, lines in _sections(found, settings, columns, all_text=text):
        screen.print(title, style="bold", markup=False)
        for line in lines:
            screen.print(f"  {line}", markup=False, soft_wrap=True)


def _choose(job: str, candidates: list[Candidate], *, json: bool) -> None:
    """Say that there is none, or which there are."""
    if json:
        typer.echo(jsonlib.dumps({"candidates": [asdict(each) for each in candidates]}, default=_plain))
    if not candidates:
        typer.echo(f"{printable(job)}: no such job", err=True)
        return
    typer.echo(f"{printable(job)}: {len(candidates)} jobs have this id; name one by its row's:", err=True)
    if not json:
        for each in candidates:
            typer.echo("  ".join((str(each.id), each.when, each.state, printable(each.audio_url))))


def _sections(shown: Shown, settings: Settings, columns: int, *, all_text: bool) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield titles with their lines; those that have nothing to say are left out."""
    known = shown.dossier
    if known.revisions:
        newest = known.revisions[0]
        yield f"Transcription {known.id}", _fields(_row(newest))
        yield from _parts(newest, columns - 2)
        yield "Text", _said(shown.segments, all_text=all_text)
        if len(known.revisions) > 1:
            yield "Revisions", (_revision(each) for each in known.revisions)
        if known.copies:
            yield "Same text as this one's", map(str, known.copies)
    elif known.failure is not None:
        letters = settings.kafka.dead_letter_topic
        yield f"Failure {known.id}", told(known.failure).splitlines()
        yield "Dead letter", [f"in {printable(letters)}, with the header v2td-id: {known.id}"]
    else:
        yield f"Job {known.id}", ["has no outcome yet: it waits, is under way, or was lost before Kafka had it"]
    for name, rows in known.others.items():
        if rows:
            yield _TITLES[name], (_inline(row) for row in rows)


def _parts(newest: StoredTranscription, columns: int) -> Iterator[tuple[str, Iterable[str]]]:
    from v2td.ops.show_waterfall import doubted, drawn
    from v2td.waterfall import bars

    for title, value in (("Metadata", newest.metadata), ("Request", newest.request), ("Route", newest.route)):
        if value:
            yield title, _fields(value)
    found = bars(newest.timings)
    yield "Waterfall", drawn(found, columns)
    others = {
        name: value for name, value in newest.timings.items() if name != "windows" and not isinstance(value, float)
    }
    if others:
        yield "Notes on its way", _fields(others)
    if doubts := doubted(found):
        yield "Doubted windows", map(printable, doubts)


def _row(newest: StoredTranscription) -> dict[str, Any]:
    row = {name: value for name, value in asdict(newest).items() if name not in _TOLD_APART}
    where = f"{row.pop('topic')}/{row.pop('kafka_partition')}/{row.pop('kafka_offset')}"
    return {"record": f"{where}, index {row.pop('record_index')}"} | row


def _fields(values: Mapping[str, Any]) -> list[str]:
    width = max(map(len, values), default=0)
    return [f"{printable(name):<{width}}  {_value(value)}" for name, value in values.items() if value is not None]


def _value(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
    if isinstance(value, dict | list):
        return printable(jsonlib.dumps(value, ensure_ascii=False, default=_plain))
    return printable(str(value))


def _inline(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in row.items() if value is not None)


def _revision(each: StoredTranscription) -> str:
    when = f"{each.created_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    return (
        f"{each.revision}  {when}  {printable(each.model)} by {printable(each.provider)}  {len(each.text)} characters"
    )


def _said(segments: tuple[StoredSegment, ...], *, all_text: bool) -> Iterator[str]:
    from v2td.formats import short_clock

    for each in segments if all_text else segments[:FIRST_SEGMENTS]:
        channel = "" if each.channel is None else f" [channel {each.channel}]"
        yield f"{short_clock(each.start_seconds)}{channel} {printable(each.text.strip())}"
    if not all_text and len(segments) > FIRST_SEGMENTS:
        yield f"… {len(segments) - FIRST_SEGMENTS} more segments: --text shows them"
    if not segments:
        yield "nothing was said"


def _entry(shown: Shown, settings: Settings) -> dict[str, Any]:
    """Return it all as JSON."""
    known = shown.dossier
    entry: dict[str, Any] = {"id": known.id, "state": "under_way"}
    if known.revisions:
        entry = asdict(known.revisions[0]) | {"state": "transcribed"}
        entry["segments"] = [asdict(each) for each in shown.segments]
        entry["copies"] = known.copies
        entry["revisions"] = [
            {name: getattr(each, name) for name in ("revision", "created_at", "model", "provider", "text")}
            for each in known.revisions
        ]
    elif known.failure is not None:
        entry = whole_entry(known.failure)
        entry["replay_state"] = entry.pop("state")
        entry |= {"state": "failed", "dead_letter_topic": settings.kafka.dead_letter_topic}
    return entry | known.others


def _plain(value: Any) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)
