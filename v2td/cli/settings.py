"""The options by which every command finds its settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from v2td.config import LoadedConfig

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="config.toml; else the one named by V2TD_CONFIG, else /etc/v2td/config.toml if there is one.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="A setting for this run, above all others (--set engine.model=demo); may be repeated.",
        show_default=False,
    ),
]


def load(config: Path | None, overrides: list[str] | None, **flags: object) -> LoadedConfig:
    """Return the settings; `flags` are the command's own options that are settings (engine__model), None if not given.

    Raises ConfigError.
    """
    from v2td import config as configuration

    given = {key.replace("__", "."): str(value) for key, value in flags.items() if value is not None}
    return configuration.load(config, _parsed(overrides or []) | given)


def _parsed(overrides: list[str]) -> dict[str, str]:
    parsed = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or "." not in key:
            raise typer.BadParameter(f"{override!r} is not SECTION.KEY=VALUE", param_hint="--set")
        parsed[key.strip()] = value
    return parsed
