"""The layers a value may come from, each read into {dotted key: Found}; what is wrong is added to `problems`."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from v2td.config.definitions import DEFINITIONS, PREFIX, SEED_VARIABLES, Definition, sections
from v2td.config.problems import MASK, did_you_mean, shown
from v2td.config.secrets import holds_secret, is_reference, with_secrets
from v2td.errors import ConfigError

BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
# Variables with our prefix that are no settings: the path of the file, and what is for tests.
CONFIG_VARIABLE = "V2TD_CONFIG"
OTHER_PREFIXES = ("V2TD_FAILPOINTS", "V2TD_TEST_")
READABLE_BY_OTHERS = stat.S_IRGRP | stat.S_IROTH


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value came from; `name` is the flag's, the variable's, the file's or the credential's."""

    kind: Literal["flag", "environment variable", "seed variable", "file", "credential", "default"]
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


@dataclass(frozen=True, slots=True)
class Found:
    """A value as TOML has it, not yet validated, and where it was found."""

    value: Any
    source: Source


Layer = dict[str, Found]


def read_file(path: Path, problems: list[ConfigError]) -> Layer:
    """What config.toml says. Raises ConfigError when it cannot be read at all."""
    source = Source("file", str(path))
    tables, mode = _parse_file(path)
    layer = {}
    for section, table in tables.items():
        if section not in sections():
            problems.append(_unknown_section(section, table, source))
        elif not isinstance(table, dict):
            problems.append(ConfigError(section, f"{MASK} ({source})", f"expected a table: write [{section}]"))
        else:
            for name, value in table.items():
                key = f"{section}.{name}"
                if key not in DEFINITIONS:
                    problems.append(_unknown(key, key, source, DEFINITIONS))
                else:
                    layer[key] = Found(value, source)
    problems += _readable_secrets(path, layer, mode)
    return layer


def _parse_file(path: Path) -> tuple[dict[str, Any], int]:
    """The tables of the file and its mode; TOML's own errors say line and column."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read().decode()
        return tomllib.loads(content), mode
    except OSError as error:
        hint = f"{error.strerror}: name a readable file, or /dev/null to use the defaults"
        raise ConfigError("configuration file", str(path), hint) from None
    except UnicodeDecodeError as error:
        raise ConfigError("configuration file", str(path), f"not UTF-8 at byte {error.start}") from None
    except ValueError as error:  # TOMLDecodeError is one, and so is a number of thousands of digits
        message = str(error).replace("at end of document", _end_of(content))
        raise ConfigError("configuration file", str(path), f"not TOML: {message}") from None


def _end_of(content: str) -> str:
    lines = content.split("\n")
    return f"at line {len(lines)}, column {len(lines[-1]) + 1}, the end"


def _unknown_section(section: str, value: Any, source: Source) -> ConfigError:
    near = did_you_mean(section, sections())
    if not isinstance(value, dict):
        homes = [key for key in DEFINITIONS if key.endswith(f".{section}")]
        near = f"; did you mean {homes[0]}?" if homes else near
        return ConfigError(section, f"{MASK} ({source})", f"no such setting outside a [section]{near}")
    return ConfigError(f"[{section}]", f"{MASK} ({source})", f"no such section{near or '; remove it'}")


def _unknown(field: str, word: str, source: Source, known: Mapping[str, Any]) -> ConfigError:
    # The value may be a secret under a misspelt key: never shown.
    return ConfigError(field, f"{MASK} ({source})", f"no such setting{did_you_mean(word, known) or '; remove it'}")


def _readable_secrets(path: Path, layer: Layer, mode: int) -> Iterator[ConfigError]:
    """A secret written into a file that others can read is refused, even when another layer overrides it."""
    if not mode & READABLE_BY_OTHERS:
        return
    readable: list[str] = []

    def look(key: str, text: str) -> str:
        if not is_reference(text) and holds_secret(key, text):
            readable.append(key)
        return text

    for key, found in layer.items():
        with_secrets(DEFINITIONS[key], found.value, look)
    hint = f"others can read this secret: run chmod 600 {path}, or move it to a file and write file:/its/path"
    for key in readable:
        yield ConfigError(key, f"{MASK} ({Source('file', str(path))})", hint)


def read_environment(environ: Mapping[str, str], problems: list[ConfigError]) -> Layer:
    """What V2TD_SECTION__KEY say."""
    by_variable = {definition.variable: definition for definition in DEFINITIONS.values()}
    layer = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE or variable.startswith(OTHER_PREFIXES):
            continue
        source = Source("environment variable", variable)
        definition = by_variable.get(variable)
        if definition is None:
            problems.append(_unknown(variable, variable, source, by_variable))
        else:
            layer[definition.key] = Found(from_text(definition, text), source)
    return layer


def read_flags(flags: Mapping[str, str], problems: list[ConfigError]) -> Layer:
    """What the command line says, by dotted key."""
    layer = {}
    for key, text in flags.items():
        source = Source("flag", key)
        if key not in DEFINITIONS:
            problems.append(_unknown(key, key, source, DEFINITIONS))
        else:
            layer[key] = Found(from_text(DEFINITIONS[key], text), source)
    return layer


def read_seed(environ: Mapping[str, str], file: Layer, above: Layer, problems: list[ConfigError]) -> Layer:
    """What the first seed's variables say; an empty one says nothing.

    `file` and `above` (environment and flags) are needed for the pool, whose two variables are a size and what is
    added to it: DB_POOL_SIZE alone raises pool_max to at least itself, DB_MAX_OVERFLOW alone adds to the pool_min
    that holds otherwise.
    """
    layer = {
        key: Found(from_text(DEFINITIONS[key], environ[name]), Source("seed variable", name))
        for key, name in SEED_VARIABLES.items()
        if environ.get(name)
    }
    overflow = _whole(environ, "DB_MAX_OVERFLOW", problems)
    sized = "database.pool_min" in layer
    pool_min = _effective("database.pool_min", layer if sized else file | above)
    pool_max = _effective("database.pool_max", file)
    if not isinstance(pool_min, int):  # refused anyway
        return layer
    if overflow is not None:
        name = SEED_VARIABLES["database.pool_max"] if sized else "DB_MAX_OVERFLOW"
        layer["database.pool_max"] = Found(pool_min + overflow, Source("seed variable", name))
    elif sized and isinstance(pool_max, int) and pool_max < pool_min:
        layer["database.pool_max"] = Found(pool_min, Source("seed variable", "DB_POOL_SIZE"))
    return layer


def _effective(key: str, layer: Layer) -> Any:
    return layer[key].value if key in layer else DEFINITIONS[key].default


def _whole(environ: Mapping[str, str], name: str, problems: list[ConfigError]) -> int | None:
    """The number in a seed variable of the pool; None when it is not set, or is none, which is a problem."""
    text = environ.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        problems.append(ConfigError(name, shown(text), "expected whole number ≥ 0"))
        return None
    return int(text)


def from_text(definition: Definition, text: str) -> Any:
    """The value that a flag's or variable's text stands for; the text itself when it is none, for validation to refuse.

    Lists are comma-separated or TOML arrays; an empty text unsets what may be unset.
    """
    if definition.optional and not text:
        return None
    if definition.item_kind is None:
        return _scalar(definition.kind, text)
    if text.lstrip().startswith("["):
        try:
            return tomllib.loads(f"array = {text}")["array"]
        except ValueError:
            return text
    return [_scalar(definition.item_kind, part.strip()) for part in text.split(",") if part.strip()]


def _scalar(kind: str, text: str) -> Any:
    if kind == "boolean":
        return BOOLEANS.get(text.lower(), text)
    try:
        return {"integer": int, "number": float}.get(kind, str)(text)
    except ValueError:
        return text
