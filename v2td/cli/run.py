"""`v2td run`: the daemon."""

from __future__ import annotations

import asyncio

import typer

from v2td.cli.settings import Config, Overrides, load

SECOND_SIGNAL = 130


def run(config: Config = None, overrides: Overrides = None) -> None:
    """Run the daemon until SIGTERM or Ctrl-C, which let it finish what is under way; a second one ends it at once.

    Exit code 0 after a drain, 1 when it cannot go on (systemd starts it again), 130 after a second signal.

    Example: `v2td run --config config.toml --set engine.slots=4`
    """
    loaded = load(config, overrides)

    import uvloop

    from v2td import daemon, logs

    logs.configure(loaded.settings.log.level, loaded.settings.log.format)
    try:
        uvloop.run(daemon.run(loaded))
    except asyncio.CancelledError:
        raise typer.Exit(SECOND_SIGNAL) from None
