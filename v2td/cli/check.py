"""`v2td check`: what the daemon would find if it started now."""

from __future__ import annotations

import asyncio
import json as jsonlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from v2td.cli.options import Json
from v2td.cli.settings import Config, Overrides, load
from v2td.cli.terminal import console, run_until_signal

if TYPE_CHECKING:
    from v2td.config import LoadedConfig, Settings
    from v2td.engine import Plan
    from v2td.engine.topology import SlotPlan
    from v2td.ops.check import Check


def check(
    *,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no service; only settings, folders, model.")] = False,
    host: Annotated[
        bool, typer.Option("--host", help="Only tell which recommendations for a machine this one meets.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Show all settings, not only those that differ.")] = False,
    json: Json = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Check settings, Kafka, Postgres, S3 and model, and show the plan of slots; exit code 1 when something is wrong.

    Nothing is changed: no group is joined, no schema upgraded, no topic created. With --host the exit code is 0 in any
    case: no recommendation is needed to work.

    Examples: `v2td check`, and `v2td check --offline --json | jq '.checks[] | select(.ok | not)'`.
    """
    from v2td.config import InvalidConfigError
    from v2td.ops.check import Check, slot_plan

    try:
        loaded = load(config, overrides)
    except InvalidConfigError as error:
        if not json:
            raise
        checks = [Check("config", False, f"{each.field} = {each.value}", each.hint) for each in error.problems]
        typer.echo(jsonlib.dumps(_report(checks, None, None), ensure_ascii=False))
        raise typer.Exit(1) from None
    if host:
        _check_host(loaded.settings, json=json)
        return
    settings = _settings(loaded, every=every)
    layout = slot_plan(loaded.settings)
    if not json:
        _show_settings(settings, loaded)
    checks = run_until_signal(_run(loaded.settings, offline=offline, show=not json))
    if json:
        typer.echo(jsonlib.dumps(_report(checks, settings, layout), ensure_ascii=False))
    else:
        slots = (_slot(slot, loaded.settings.engine.device) for slot in layout.slots)
        typer.echo("".join(f"{line}\n" for line in ("", *layout.reasons, *slots)))
        bad = sum(not each.ok for each in checks)
        typer.echo(f"{bad} of {len(checks)} checks failed" if bad else "all is well")
    raise typer.Exit(0 if all(each.ok for each in checks) else 1)


def _check_host(settings: Settings, *, json: bool) -> None:
    """Show each recommendation, what was found, and what brings it where it is not met."""
    from v2td.ops.host import recommendations

    found = recommendations(settings)
    if json:
        typer.echo(jsonlib.dumps({"recommendations": [asdict(each) for each in found]}, ensure_ascii=False))
        return
    for each in found:
        typer.echo(f"{'✓' if each.met else '·'} {each.name}: {each.found}")
        if not each.met:
            typer.echo(f"  recommended: {each.recommended} ({each.why})")
            typer.echo(f"  → {each.how}")
    typer.echo(f"{sum(each.met for each in found)} of {len(found)} recommendations are met; none is needed to work")


async def _run(settings: Settings, *, offline: bool, show: bool) -> list[Check]:
    """Run all checks at once; show each group of them when it and those before it are done."""
    from v2td import logs
    from v2td.ops.check import checkers, run

    checks: list[Check] = []
    waiting = checkers(settings, offline=offline)
    with console().status("") as status:
        logs.configure("error", "auto")  # within the status, so that what it says goes above it
        async with asyncio.TaskGroup() as group:
            tasks = {name: group.create_task(run(name, each, settings)) for name, each in waiting.items()}
            for task in tasks.values():
                status.update("checking " + ", ".join(each for each, other in tasks.items() if not other.done()))
                found = await task
                checks += found
                for each in found if show else ():
                    status.stop()
                    _show_check(each)
                    status.start()
    return checks


def _settings(loaded: LoadedConfig, *, every: bool) -> dict[str, dict[str, Any]]:
    """Return {section.key: {value, source}} without secrets; all, or those whose value is not the default."""
    from v2td.config import Settings, redacted

    values, defaults = loaded.settings.model_dump(), Settings().model_dump()
    shown = redacted(loaded.settings)
    settings = {}
    for key, source in loaded.sources.items():
        section, _, name = key.partition(".")
        if every or values[section][name] != defaults[section][name]:
            settings[key] = {"value": shown[section][name], "source": str(source)}
    return settings


def _show_settings(settings: dict[str, dict[str, Any]], loaded: LoadedConfig) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_edge=False)
    for heading in ("setting", "value", "from"):
        table.add_column(heading, overflow="fold")
    for key, each in settings.items():
        table.add_row(key, Text(jsonlib.dumps(each["value"], ensure_ascii=False)), Text(each["source"]))
    typer.echo(f"config file: {loaded.path or 'none'}")
    if settings:
        console(stderr=False).print(table)
    else:
        typer.echo("every setting has its default")
    typer.echo()


def _show_check(each: Check) -> None:
    from rich.text import Text

    mark = Text("✓ ", "green") if each.ok else Text("✗ ", "red")
    line = mark + Text(f"{each.name}: ", "bold") + Text(each.detail)
    console(stderr=False).print(line, soft_wrap=True)
    if each.hint:
        typer.echo(f"  → {each.hint}")


def _slot(slot: SlotPlan, device: str) -> str:
    said = f"  a slot on CPU {', '.join(map(str, slot.cpus)) or 'any'}, threads: {slot.threads}"
    if slot.node is not None:
        said += f", memory of node {slot.node}"
    return said + (f", GPU {slot.device_index}" if device == "cuda" else "")


def _report(checks: list[Check], settings: dict[str, dict[str, Any]] | None, layout: Plan | None) -> dict[str, Any]:
    return {
        "ok": all(each.ok for each in checks),
        "checks": [asdict(each) for each in checks],
        "settings": settings,
        "plan": None if layout is None else asdict(layout),
    }
