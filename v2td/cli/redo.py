"""`v2td redo`: transcriptions done again by another model or provider."""

from __future__ import annotations

import json as jsonlib
import re
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from v2td.cli.acts import audited, named
from v2td.cli.failures import TIME, moment, printable
from v2td.cli.options import Json
from v2td.cli.settings import Config, Overrides, load
from v2td.cli.terminal import counting_bar, run_until_signal

if TYPE_CHECKING:
    from v2td.config import Settings
    from v2td.ops.redo import Redone, Target
    from v2td.store.redos import Candidate, Selection, Term

WHICH = "say which transcriptions: by --job, --since, --until or --where"
TERM = re.compile(r"""\s*([a-z_]+)\s*(!?=)\s*(?:'([^']*)'|"([^"]*)"|([^\s'"]+))\s*""")


def redo(
    jobs: Annotated[
        list[str] | None,
        typer.Option(
            "--job", metavar="JOB", help="Row's id, or the message's own; may be repeated.", show_default=False
        ),
    ] = None,
    *,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help=f"Transcribed then or later: {TIME}", show_default=False),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="TIME", help="Transcribed before: as --since.", show_default=False),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="COLUMN=VALUE",
            help="provider, model, language, topic, tenant or task, with = or != (--where \"provider='x'\"); all of "
            "several must fit.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="The model that is to do it.", show_default=False)
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(
            "--provider", metavar="NAME", help="The provider, or group, that is to do it.", show_default=False
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="The oldest so many; all when not given.", show_default=False)
    ] = None,
    in_flight: Annotated[
        int, typer.Option("--in-flight", min=1, help="So many at once; live traffic waits behind them.")
    ] = 20,
    again: Annotated[
        bool,
        typer.Option("--again", help="Those too that are by this model, or failed, or were asked for and never done."),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="--no-wait: send all at once, and leave the rest to the daemon.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Transcribe again, by another model or provider, what was transcribed before.

    Each gets another `revision` of its row, with the same id: reads show the newest, the older stay. A revision that
    fails leaves all as it was. The daemon does this after everything else, a few at a time. Stopped, the same command
    goes on: what is there already is left alone, what is asked for is waited for. Prints for each the id of its row,
    done, sent, left (alone), failed or refused, and by whom, or why. Exit code 1 when one failed, was refused or not
    found.

    Example: `v2td redo --model large-v3 --since 7d --where language=vi --dry-run`
    """
    from v2td.ops.redo import Target

    if not (jobs or since or until or where):
        raise typer.BadParameter(WHICH)
    settings = load(config, overrides).settings
    target = _target(settings, Target(model, provider))
    selection = _selection(jobs, since, until, where)
    chosen = run_until_signal(_find(settings, selection))
    missing = _unmatched(selection, chosen)
    for job in missing:
        typer.echo(f"{printable(job)}: no such transcription", err=True)
    chosen = chosen[:limit]
    if not (jobs or yes or dry_run) and len(chosen) > 1:
        _confirm(len(chosen), target)
    at_once = in_flight if wait and not dry_run else None
    done = _redo(settings, target, chosen, again=again, dry_run=dry_run, json=json, in_flight=at_once)
    counts = Counter(each.result.value for each in done)
    if json:
        entries = [
            {"id": str(each.id), "revision": each.revision, "result": each.result.value, "detail": each.told}
            for each in done
        ]
        sums = {name: counts[name] for name in ("done", "sent", "left", "failed", "refused")}
        typer.echo(jsonlib.dumps({"dry_run": dry_run, **sums, "transcriptions": entries}, ensure_ascii=False))
    else:
        sent = "would be sent" if dry_run else "sent"
        typer.echo(
            f"{counts['done']} done, {counts['sent']} {sent}, {counts['left']} left alone, {counts['failed']} failed, "
            f"{counts['refused']} refused",
            err=True,
        )
    if counts["failed"] or counts["refused"] or missing:
        raise typer.Exit(1)


def _target(settings: Settings, target: Target) -> Target:
    """Return the target, which the daemon must know."""
    from v2td.messages import Known

    known = Known.of(settings)
    for option, given, there in (
        ("--model", target.model, known.models),
        ("--provider", target.provider, known.providers),
    ):
        if given is not None and given not in there:
            raise typer.BadParameter(f"{printable(given)} is none of {', '.join(sorted(there))}", param_hint=option)
    return target


def _selection(jobs: list[str] | None, since: str | None, until: str | None, where: list[str] | None) -> Selection:
    from v2td.store.redos import Selection

    now = datetime.now(UTC)
    return Selection(
        tuple(jobs or ()),
        moment(since, now, "--since"),
        moment(until, now, "--until"),
        tuple(term(each) for each in where or ()),
    )


def term(text: str) -> Term:
    """Read what --where says; raises BadParameter."""
    from v2td.store.redos import COLUMNS, Term

    found = TERM.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not COLUMN=VALUE or COLUMN!=VALUE", param_hint="--where")
    column, operator, *values = found.groups()
    if column not in COLUMNS:
        raise typer.BadParameter(f"{column!r} is none of {', '.join(COLUMNS)}", param_hint="--where")
    return Term(column, next(each for each in values if each is not None), operator == "!=")


def _unmatched(selection: Selection, chosen: Sequence[Candidate]) -> list[str]:
    names = {name for each in chosen for name in (str(each.id), each.job_id)}
    return [job for job in selection.jobs if names.isdisjoint((job, job.lower()))]


def _confirm(count: int, target: Target) -> None:
    """Ask before many are done; who is not there to answer has to say --yes."""
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{count} transcriptions are meant: say --yes, or look at them by --dry-run")
    who = " of ".join(each for each in (target.model, target.provider) if each) or "whom the rules name"
    typer.confirm(f"Have {count} transcriptions done again by {who}?", abort=True, err=True)


async def _find(settings: Settings, selection: Selection) -> list[Candidate]:
    from v2td.ops.redo import find

    return await find(settings, selection)


def _redo(
    settings: Settings,
    target: Target,
    chosen: Sequence[Candidate],
    *,
    again: bool,
    dry_run: bool,
    json: bool,
    in_flight: int | None,
) -> list[Redone]:
    """Do it with a bar that shows how far it is; what is interrupted says how it goes on."""
    done: list[Redone] = []
    work = _work(settings, target, chosen, done, again=again, dry_run=dry_run, json=json, in_flight=in_flight)
    try:
        run_until_signal(work)
    except KeyboardInterrupt:
        typer.echo(
            f"stopped after {len(done)} of {len(chosen)}; what is asked for goes on, and the same command waits for it",
            err=True,
        )
        raise
    return done


async def _work(
    settings: Settings,
    target: Target,
    chosen: Sequence[Candidate],
    done: list[Redone],
    *,
    again: bool,
    dry_run: bool,
    json: bool,
    in_flight: int | None,
) -> None:
    from v2td.ops.redo import open_redoer

    if not chosen:
        return

    def what() -> dict[str, Any]:
        asked = {name: value for name, value in (("model", target.model), ("provider", target.provider)) if value}
        return {**asked, **Counter(each.result.value for each in done), "jobs": named(each.id for each in done)}

    with counting_bar() as progress:
        bar = progress.add_task("doing again", total=len(chosen))
        async with (
            nullcontext() if dry_run else audited(settings, "redo", what),
            open_redoer(settings, target, again=again, dry_run=dry_run, in_flight=in_flight) as redoer,
            aclosing(redoer.redo([each.id for each in chosen])) as results,
        ):
            async for each in results:
                done.append(each)
                progress.advance(bar)
                if not json:
                    number = "" if each.revision is None else f" revision {each.revision}"
                    typer.echo(f"{each.id}  {each.result}{number}  {printable(each.told)}")
