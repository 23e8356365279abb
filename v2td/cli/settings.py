"""The options by which every command finds its settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from v2td.config import LoadedConfig

NOTHING: Mapping[str, str] = MappingProxyType({})

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
        help="A setting for this run, above all others (--set engine.model=demo); may be repeated. Of secrets only "
        "where they lie (file:, env: or credential:).",
        show_default=False,
    ),
]


def load(
    config: Path | None, overrides: list[str] | None, typed: Mapping[str, str] = NOTHING, **flags: object
) -> LoadedConfig:
    """Return the settings; `flags` are the command's own options that are settings (engine__model), None if not given.

    `typed` are settings (database.dsn) of an option for which a secret may be typed. Raises ConfigError, also for any
    other secret on the command line.
    """
    from v2td import config as configuration

    given = {key.replace("__", "."): str(value) for key, value in flags.items() if value is not None}
    given = _parsed(overrides or []) | given
    _refuse_secrets(given)
    return configuration.load(config, given | dict(typed))


def _refuse_secrets(given: dict[str, str]) -> None:
    """Raise InvalidConfigError for secrets themselves; what says where they lie passes, and a DSN without one."""
    from v2td.config import InvalidConfigError
    from v2td.config.definitions import DEFINITIONS
    from v2td.config.layers import from_text
    from v2td.config.problems import MASK
    from v2td.config.secrets import holds_secret, is_reference, with_secrets
    from v2td.errors import ConfigError

    hint = (
        "all users can read a command line: write file:/its/path, env:NAME or credential:NAME, which say where it lies"
    )
    problems = []

    def look(key: str, text: str) -> str:
        if text and not is_reference(text) and holds_secret(key, text):
            problems.append(ConfigError(key, f"{MASK} (flag)", hint))
        return text

    for key, text in given.items():
        if (definition := DEFINITIONS.get(key)) is not None:
            with_secrets(definition, from_text(definition, text), look)
    if problems:
        raise InvalidConfigError(problems)


def _parsed(overrides: list[str]) -> dict[str, str]:
    parsed = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or "." not in key:
            raise typer.BadParameter(f"{override!r} is not SECTION.KEY=VALUE", param_hint="--set")
        parsed[key.strip()] = value
    return parsed
