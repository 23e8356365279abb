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

    `default` is a value as TOML has it; None when it is unset or, a key of `columns`, has to be set. A setting of
    several tables has `columns`, the keys of each: no settings by themselves, and never secret as a whole.
    """

    key: str
    kind: str
    item_kind: str | None
    expected: str
    description: str
    default: Any
    optional: bool
    secret: bool
    columns: tuple[Definition, ...] = ()

    @property
    def section(self) -> str:
        """The table of config.toml it lies in."""
        return self.key.partition(".")[0]

    @property
    def name(self) -> str:
        """Its key within that table."""
        return self.key.rpartition(".")[2]

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
        length = f" of at least {schema['minLength']} characters" if schema.get("minLength", 1) > 1 else ""
        return ("absolute path" if schema.get("format") == "path" else "text") + length + example
    if schema["type"] in ("boolean", "object"):
        table = "table of texts" if schema.get("additionalProperties") else "table"
        return {"boolean": "true or false", "object": table}[schema["type"]]
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
    plain = value is None or isinstance(value, bool | int | float | str | dict)
    return value if plain else str(value)  # paths, networks


def _definition(
    section: str, name: str, schema: Mapping[str, Any], default: Any, tables: Mapping[str, Any]
) -> Definition:
    """Describe one setting; `tables` are the schemas of the tables that a setting may have several of."""
    variants = schema.get("anyOf", [schema])
    optional = any(variant.get("type") == "null" for variant in variants)
    value = next(variant for variant in variants if variant.get("type") != "null")
    items = value.get("items", {})
    key = f"{section}.{name}"
    if "$ref" in items:
        items = tables[items["$ref"].rpartition("/")[2]]
        value = {**value, "items": items}
    return Definition(
        key=key,
        kind=value["type"],
        item_kind=items.get("type", "string") if value["type"] == "array" else None,
        expected=_expected(value),
        description=schema["description"],
        default=_as_toml(default),
        optional=optional,
        secret=value.get("additionalProperties", value).get("writeOnly", False),
        columns=tuple(
            _definition(key, column, each, each.get("default"), tables)
            for column, each in items.get("properties", {}).items()
        ),
    )


def sections() -> Mapping[str, type[Section]]:
    """The tables of config.toml in their order."""
    fields = Settings.model_fields
    return {name: field.annotation for name, field in fields.items() if isinstance(field.annotation, type)}


def _definitions() -> dict[str, Definition]:
    found = {}
    for section, model in sections().items():
        schema = model.model_json_schema()
        for name, each in schema["properties"].items():
            definition = _definition(section, name, each, model.model_fields[name].default, schema.get("$defs", {}))
            found[definition.key] = definition
    return found


DEFINITIONS: Mapping[str, Definition] = MappingProxyType(_definitions())
