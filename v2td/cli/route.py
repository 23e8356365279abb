"""`v2td route`: which provider would transcribe a recording, by which rule, and why not by another."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from v2td.cli.options import Json
from v2td.cli.settings import Config, Overrides, load
from v2td.cli.terminal import run_until_signal

if TYPE_CHECKING:
    from v2td.providers import Decision, Facts, Needs

OPTIONS = {"size": "--size", "seconds": "--seconds", "language": "--language"}  # by the fact that they tell


def route(
    *,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="A recording here.", show_default=False)
    ] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", help="One elsewhere; downloaded only if a rule hinges on it.", show_default=False),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=0, metavar="BYTES", help="Its size, if not found out.", show_default=False)
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Its duration, if not found out.", show_default=False)
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            "--language",
            "-l",
            metavar="CODE",
            help="Spoken language (en, vi, …), or none; the topic's or engine.default_language when not "
            "given. It is not detected here.",
            show_default=False,
        ),
    ] = None,
    priority: Annotated[int, typer.Option(min=0, max=9, help="The message's; 0 is most urgent.")] = 5,
    topic: Annotated[
        str | None, typer.Option(help="Topic; the first of kafka.topics when not given.", show_default=False)
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Tenant the message names.", show_default=False)] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", metavar="KEY=VALUE", help="Of the message's metadata; may be repeated."),
    ] = None,
    json: Json = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Tell which provider would transcribe a recording, and what each rule says of it.

    Nothing is transcribed, and Kafka and Postgres are not needed. Exit code 1 when it hinges on something that is not
    known: then that option is named.

    Example: `v2td route --file call.wav --language zh`
    """
    from v2td.errors import JobError
    from v2td.ops.route import route as route_of
    from v2td.providers import Facts, Needs

    if file is not None and url is not None:
        raise typer.BadParameter("give one of --file and --url", param_hint="--url")
    settings = load(config, overrides).settings
    topic = topic or settings.kafka.topics[0]
    facts = Facts(
        size_bytes=size,
        seconds=seconds,
        language=_language(language, settings.kafka.languages_by_topic.get(topic) or settings.engine.default_language),
        priority=priority,
        topic=topic,
        tenant=tenant,
        metadata=_metadata(metadata or []),
    )
    source = file if file is not None else url
    try:
        facts, found = run_until_signal(route_of(settings, facts, source), "looking at it")
    except JobError as error:
        from v2td.messages import without_secrets

        typer.echo(f"{without_secrets(str(source))}: {error}", err=True)
        raise typer.Exit(1) from None
    if json:
        typer.echo(jsonlib.dumps(_report(facts, found), ensure_ascii=False))
    else:
        typer.echo("\n".join(_lines(found)))
    raise typer.Exit(1 if isinstance(found, Needs) else 0)


def _language(given: str | None, otherwise: str | None) -> str | None:
    """Return the language as rules know it: "" for a recording that is known to have none."""
    from v2td.config.languages import LANGUAGES

    if given == "none":
        return ""
    if given is not None and given not in LANGUAGES:
        raise typer.BadParameter(f"{given!r} is none of Whisper's languages (en, vi, …)", param_hint="--language")
    return given or otherwise


def _metadata(given: list[str]) -> dict[str, str]:
    found = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{each!r} is not KEY=VALUE", param_hint="--metadata")
        found[key] = value
    return found


def _lines(found: Decision | Needs) -> list[str]:
    from v2td.providers import Needs

    why = [f"  {line}" for line in found.why]
    if isinstance(found, Needs):
        missing = " and ".join(OPTIONS[fact] for fact in sorted(found.facts))
        return [f"undecided, one of {', '.join(found.targets)}: the rule {found.rule} needs {missing}", *why]
    by = "no rule fits it" if found.rule is None else f"by the rule {found.rule}"
    then = [f"  when that fails: {', '.join(found.chain[1:])}"] if len(found.chain) > 1 else []
    return [f"{found.target}, {by}", *then, *why]


def _report(facts: Facts, found: Decision | Needs) -> dict[str, Any]:
    from v2td.providers import Needs

    known = {"size_bytes": facts.size_bytes, "seconds": facts.seconds, "language": facts.language}
    if isinstance(found, Needs):
        needs = {"rule": found.rule, "facts": sorted(found.facts), "targets": list(found.targets)}
        return {"decided": False, "needs": needs, "why": list(found.why), "facts": known}
    return {"decided": True, **found.as_json(), "facts": known}
