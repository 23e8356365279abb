"""Each setting as data, read off the section classes: what loading, secrets and the reference all need to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import SecretStr

from v2td.config.settings import Settings
from v2td.config.values import Section

PREFIX = "V2TD_"

# The first seed's names. DB_MAX_OVERFLOW is the one that is no plain value: see loading.py.
SEED_VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        "engine.slots": "STT_MAX_WORKERS",
        "engine.model": "WHISPER_MODEL_SIZE",
        "engine.device": "WHISPER_DEVICE",
        "engine.compute_type": "WHISPER_COMPUTE_TYPE",
        "kafka.commit_batch": "STT_BATCH_SIZE",
        "database.pool_min": "DB_POOL_SIZE",
        "database.pool_max": "DB_POOL_SIZE + DB_MAX_OVERFLOW",
    }
)


@dataclass(frozen=True, slots=True)
class Definition:
    """One setting. `kind` and `item_kind` are JSON Schema types; `expected` says in words what is accepted.

    `default` is a value as TOML has it; None when it is unset.
    """

    key: str
    kind: str
    item_kind: str | None
    expected: str
    description: str
    default: Any
    optional: bool
    secret: bool

    @property
    def section(self) -> str:
        """The table of config.toml it lies in."""
        return self.key.partition(".")[0]

    @property
    def name(self) -> str:
        """Its key within that table."""
        return self.key.partition(".")[2]

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.key.replace(".", "__").upper()


def _expected(schema: Mapping[str, Any]) -> str:
    """What a value must be, in words, from its JSON Schema."""
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    if "anyOf" in schema:  # IPv4 or IPv6
        return "network such as 10.20.0.0/16"
    if schema["type"] == "array":
        return "list, each " + _expected(schema["items"]) + ("; at least one" if schema.get("minItems") else "")
    if schema["type"] == "string":
        example = "".join(f" such as {example}" for example in schema.get("examples", ()))
        return ("absolute path" if schema.get("format") == "path" else "text") + example
    if schema["type"] == "boolean":
        return "true or false"
    bounds = [
        f"{sign} {schema[name]:_}"
        for name, sign in (("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤"))
        if name in schema
    ]
    return " ".join([{"integer": "whole number", "number": "number"}[schema["type"]], ", ".join(bounds)]).rstrip()


def _as_toml(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return [_as_toml(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)  # paths, networks


def _definition(section: str, name: str, schema: Mapping[str, Any], default: Any) -> Definition:
    variants = schema.get("anyOf", [schema])
    optional = any(variant.get("type") == "null" for variant in variants)
    value = next(variant for variant in variants if variant.get("type") != "null")
    items = value.get("items", {})
    return Definition(
        key=f"{section}.{name}",
        kind=value["type"],
        item_kind=items.get("type", "string") if value["type"] == "array" else None,
        expected=_expected(value),
        description=schema["description"],
        default=_as_toml(default),
        optional=optional,
        secret=value.get("writeOnly", False),
    )


def sections() -> Mapping[str, type[Section]]:
    """The tables of config.toml in their order."""
    fields = Settings.model_fields
    return {name: field.annotation for name, field in fields.items() if isinstance(field.annotation, type)}


def _definitions() -> dict[str, Definition]:
    found = {}
    for section, model in sections().items():
        for name, schema in model.model_json_schema()["properties"].items():
            definition = _definition(section, name, schema, model.model_fields[name].default)
            found[definition.key] = definition
    return found


DEFINITIONS: Mapping[str, Definition] = MappingProxyType(_definitions())
