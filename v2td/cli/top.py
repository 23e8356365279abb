"""`v2td top`: a group at work, seen from a terminal."""

from __future__ import annotations

import asyncio
import json as jsonlib
import logging
import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from v2td.cli.settings import Config, Overrides, load
from v2td.cli.terminal import console, run_until_signal

if TYPE_CHECKING:
    from rich.console import Console

    from v2td.cli.top_screen import View
    from v2td.cli.top_terminal import Keyboard, Screen
    from v2td.config import LoadedConfig
    from v2td.ops.top import Monitor
    from v2td.ops.top_figures import Figures

INTERVAL_SECONDS = 5.0


def top(
    *,
    interval: Annotated[
        float | None,
        typer.Option(
            min=0.5,
            max=3600,
            metavar="SECONDS",
            help="Time between two looks: 5; with --once until every instance has reported again, at most 11.",
            show_default=False,
        ),
    ] = None,
    kafka: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT,…", help="Brokers, in place of kafka.bootstrap_servers.", show_default=False),
    ] = None,
    db: Annotated[
        str | None,
        typer.Option(
            metavar="DSN",
            help="Postgres, in place of database.dsn; other users of this machine can read a password given here.",
            show_default=False,
        ),
    ] = None,
    admin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Admin address of a daemon, for its slots and stages; may be repeated. When not given, that of the "
            "config, if it answers.",
            show_default=False,
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(metavar="GROUP", help="Consumer group, in place of kafka.group_id.", show_default=False),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Tell once, and end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Tell each time with one JSON object on a line.")] = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Watch a whole group at work: messages a minute, lag, backlog, errors, latency by provider, CPU and memory.

    It asks Kafka and Postgres, joins no group and changes nothing. On a terminal it takes the whole screen: q quits, p
    pauses, s sorts, space looks now. Elsewhere a table is printed each time. With --once exit code 1 when nothing could
    be reached.

    Example: `v2td top --interval 30 --kafka kafka-1:9092 --db postgresql://v2td@db-1/v2td`
    """
    for address in admin or ():
        if "@" in address:
            raise typer.BadParameter("no user and no password: the token is admin.token", param_hint="--admin")
        if not address.startswith(("http://", "https://", "unix:/")):
            raise typer.BadParameter(f"{address!r} is no http://, https:// or unix:/ address", param_hint="--admin")
    typed = {} if db is None else {"database.dsn": db, "database.read_dsn": ""}
    loaded = load(config, overrides, typed, kafka__bootstrap_servers=kafka, kafka__group_id=group)
    for chatty in ("aiokafka", "asyncio"):  # what they log is told as the reason why Kafka was not reached
        logging.getLogger(chatty).propagate = False
    with suppress(_QuitError):
        run_until_signal(_top(loaded, tuple(admin or ()), interval, once=once, json=json))


class _QuitError(Exception):
    """Somebody pressed q."""


async def _top(loaded: LoadedConfig, admin: tuple[str, ...], interval: float | None, *, once: bool, json: bool) -> None:
    from v2td.ops.top import open_monitor

    kafka = loaded.settings.kafka
    named = loaded.sources["kafka.topics"].kind != "default"
    topics = (*kafka.topics, *filter(None, (kafka.retry_topic,))) if named else None
    seconds = interval or INTERVAL_SECONDS
    screen = console(stderr=False)
    async with open_monitor(loaded.settings, topics=topics, admin=admin, interval_seconds=seconds) as monitor:
        if once:
            with console().status("looking"):
                found = await monitor.once(interval)
            _tell(found, seconds, screen, json=json)
            if not found.reached:
                raise typer.Exit(1)
        elif json or not screen.is_terminal or screen.is_dumb_terminal:
            while True:
                _tell(await monitor.look(), seconds, screen, json=json)
                await asyncio.sleep(seconds)
        else:
            await _full_screen(monitor, seconds, screen)


def _tell(found: Figures, seconds: float, screen: Console, *, json: bool) -> None:
    from v2td.cli.top_screen import View, lines

    if json:
        typer.echo(jsonlib.dumps(asdict(found), ensure_ascii=False))
    else:
        for line in lines(View(seconds, found), screen.width, None):
            screen.print(line, soft_wrap=True)
        typer.echo()
    sys.stdout.flush()


async def _full_screen(monitor: Monitor, seconds: float, console: Console) -> None:
    """Show it until q is pressed; the terminal is as it was afterwards, however this ends."""
    from v2td.cli.top_screen import View, lines
    from v2td.cli.top_terminal import Keyboard, Screen

    view = View(seconds)
    with Screen(console, lambda width, height: lines(view, width, height)) as screen, Keyboard() as keyboard:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, screen.refresh)
        loop.add_signal_handler(signal.SIGTSTP, _suspend, screen, keyboard)
        wake = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_watch(monitor, view, screen, wake))
                await _obey(keyboard, view, screen, wake)
        except* _QuitError:
            raise _QuitError from None


async def _watch(monitor: Monitor, view: View, screen: Screen, wake: asyncio.Event) -> None:
    """Look again and again; while it is paused only when asked to."""
    while True:
        view.figures = await monitor.look()
        screen.refresh()
        wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(None if view.paused else view.interval_seconds):
                await wake.wait()


async def _obey(keyboard: Keyboard, view: View, screen: Screen, wake: asyncio.Event) -> None:
    """Do what keys say; _QuitError for q."""
    from v2td.cli.top_screen import ORDERS

    while True:
        match (await keyboard.pressed.get()).lower():
            case "q":
                raise _QuitError
            case "p":
                view.paused = not view.paused
                wake.set()
            case "s":
                view.order = (view.order + 1) % len(ORDERS)
            case " ":
                wake.set()
        screen.refresh()


def _suspend(screen: Screen, keyboard: Keyboard) -> None:
    """Give the shell its screen back until we are continued (Ctrl-Z, fg)."""
    screen.close()
    keyboard.restore()
    os.kill(os.getpid(), signal.SIGSTOP)
    keyboard.listen()
    screen.open()
