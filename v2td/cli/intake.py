"""`v2td pause` and `v2td resume`: whether jobs are taken from Kafka."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from v2td.cli.acts import actor
from v2td.cli.failures import printable
from v2td.cli.options import Json
from v2td.cli.settings import Config, Overrides, load
from v2td.cli.terminal import run_until_signal

if TYPE_CHECKING:
    from v2td.config import Settings

Instance = Annotated[
    str | None,
    typer.Option(
        "--instance",
        metavar="NAME",
        help="This one alone, as named in the table `instances`; all of the group when not given.",
        show_default=False,
    ),
]


def pause(*, instance: Instance = None, json: Json = False, config: Config = None, overrides: Overrides = None) -> None:
    """Take no more jobs from Kafka, in all instances of kafka.group_id, until `v2td resume`.

    What is under way goes on, and nothing is lost: records wait in Kafka. A pause outlives restarts, and an instance
    that joins the group is paused, too. /readyz and /status say who asked for it. An instance that is paused keeps its
    partitions. The last word counts: a resume without --instance also resumes one that was paused by name.

    Examples: `v2td pause`, `v2td pause --instance worker-3`
    """
    _say("pause", instance, load(config, overrides).settings, json=json)


def resume(
    *, instance: Instance = None, json: Json = False, config: Config = None, overrides: Overrides = None
) -> None:
    """Take jobs from Kafka again, in all instances of kafka.group_id, also in those that were paused by name.

    Examples: `v2td resume`, `v2td resume --instance worker-3`
    """
    _say("resume", instance, load(config, overrides).settings, json=json)


def _say(kind: Literal["pause", "resume"], instance: str | None, settings: Settings, *, json: bool) -> None:
    run_until_signal(_give(kind, instance, settings), "asking Postgres")
    group = settings.kafka.group_id
    if json:
        typer.echo(jsonlib.dumps({"command": kind, "group": group, "instance": instance}))
    else:
        whom = f"the group {group}" if instance is None else f"{printable(instance)} of the group {group}"
        typer.echo(f"{kind}: {whom}")


async def _give(kind: Literal["pause", "resume"], instance: str | None, settings: Settings) -> None:
    from v2td.store import commands, open_database
    from v2td.store.commands import Command

    database_settings = settings.database.model_copy(update={"pool_min": 0})
    async with open_database(database_settings, "v2td commands") as database:
        if instance is not None and instance not in (known := await commands.instances(database)):
            names = ", ".join(map(printable, known)) or "no instance, since none has reported for a day"
            raise typer.BadParameter(f"{instance!r} is none of {names}", param_hint="--instance")
        await commands.give(database, Command(kind, group_id=settings.kafka.group_id, instance=instance), actor())
