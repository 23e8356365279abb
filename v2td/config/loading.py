"""One frozen `Settings` out of all layers, with everything that is wrong told at once."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from v2td.config.definitions import DEFINITIONS
from v2td.config.layers import Found, Layer, Source, read_environment, read_file, read_flags, read_seed
from v2td.config.problems import MASK, InvalidConfigError, did_you_mean, shown
from v2td.config.secrets import resolve, unconfigured, with_secrets
from v2td.config.settings import Settings
from v2td.errors import ConfigError

SYSTEM_PATH = Path("/etc/v2td/config.toml")
NO_FLAGS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """The settings, where each of them (`engine.slots`) came from, and the file that was read, if any."""

    settings: Settings
    sources: Mapping[str, Source]
    path: Path | None


def load(
    path: Path | None, flags: Mapping[str, str] = NO_FLAGS, environ: Mapping[str, str] = os.environ
) -> LoadedConfig:
    """Read every layer: flag > V2TD_SECTION__KEY > the first seed's variables > file > default.

    `path` None: the file that V2TD_CONFIG names, else /etc/v2td/config.toml if it exists, else none. `flags` are
    {dotted key: text}. Raises InvalidConfigError, a ConfigError that holds every problem found.
    """
    if path is None:
        path = _usual_path(environ)
    problems: list[ConfigError] = []
    try:
        file = read_file(path, problems) if path is not None else {}
    except ConfigError as error:
        raise InvalidConfigError([error]) from None
    above = read_environment(environ, problems) | read_flags(flags, problems)
    found = file | read_seed(environ, file, above, problems) | above
    _resolve_secrets(found, environ, problems)
    settings = _validated(found, problems)
    if settings is None or problems:
        raise InvalidConfigError(problems)
    sources = {key: found[key].source if key in found else Source("default") for key in DEFINITIONS}
    return LoadedConfig(settings, MappingProxyType(sources), path)


def _usual_path(environ: Mapping[str, str]) -> Path | None:
    named = environ.get("V2TD_CONFIG")
    if named:
        return Path(named)
    try:
        SYSTEM_PATH.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        pass  # reading it will say so: silently taking the defaults would be worse
    return SYSTEM_PATH


def _resolve_secrets(found: Layer, environ: Mapping[str, str], problems: list[ConfigError]) -> None:
    """Put the secrets themselves where references to them stand, and systemd's where nothing stands."""

    def resolved(key: str, text: str) -> str:
        try:
            return resolve(key, text, environ)
        except ConfigError as error:
            problems.append(ConfigError(key, f"{text} ({source})", error.hint))
            return text

    for key, definition in DEFINITIONS.items():
        if definition.secret and key not in found and (reference := unconfigured(key, environ)):
            found[key] = Found(reference, Source("credential", key))
        if key in found:
            source = found[key].source
            found[key] = Found(with_secrets(definition, found[key].value, resolved), source)


def _validated(found: Layer, problems: list[ConfigError]) -> Settings | None:
    """The settings, or None with the reasons added to `problems`."""
    tables: dict[str, dict[str, Any]] = {}
    for key, definition in DEFINITIONS.items():
        value = found[key].value if key in found else definition.default
        tables.setdefault(definition.section, {})[definition.name] = value if _fits_json(value) else {}
    # Strict, so that slots = "4" is refused; as JSON, so that arrays, paths and networks need no hands of ours.
    try:
        return Settings.model_validate_json(json.dumps(tables), strict=True)
    except ValidationError as error:
        told = {problem.field for problem in problems}
        for details in error.errors(include_url=False, include_input=False):
            for key, hint in _reasons(details["loc"], details.get("ctx", {})):
                if key not in told:
                    problems.append(_problem(key, found, hint))
                    told.add(key)
        return None


def _fits_json(value: Any) -> bool:
    """False for TOML's dates and variables that are not UTF-8; an object, which no setting takes, stands for them."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (TypeError, UnicodeEncodeError):
        return False
    return True


def _reasons(location: tuple[int | str, ...], context: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(dotted key, cure) of one of pydantic's errors: a single value, or several that contradict each other."""
    where = ".".join(map(str, location[:2])) + "".join(f"[{index}]" for index in location[2:3])
    if "contradictions" in context:
        prefix = f"{where}." if where else ""
        return [(prefix + key, f"must be {requirement}") for key, requirement in context["contradictions"]]
    definition = DEFINITIONS[".".join(map(str, location[:2]))]
    hint = f"must be {context['requirement']}" if "requirement" in context else None
    if not definition.columns:
        entry = f"entry {location[-1] + 1} " if hint and isinstance(location[-1], int) else ""
        return [(definition.key, entry + (hint or f"expected {definition.expected}"))]
    if len(location) < 4:
        return [(definition.key, f"expected {definition.expected}: write [[{definition.key}]]")]
    columns = {column.name: column for column in definition.columns}
    name = str(location[3])
    if name not in columns:
        return [(f"{where}.{name}", f"no such setting{did_you_mean(name, columns) or '; remove it'}")]
    return [(f"{where}.{name}", hint or f"expected {columns[name].expected}")]


def _problem(key: str, found: Layer, hint: str) -> ConfigError:
    """Tell a problem with a value that is shown, unless it is a secret or lies in a table, which may hold some."""
    definition = DEFINITIONS[key.partition("[")[0]]
    value, source = definition.default, Source("default")
    if definition.key in found:
        value, source = found[definition.key].value, found[definition.key].source
    return ConfigError(key, f"{MASK if definition.secret or definition.columns else shown(value)} ({source})", hint)
