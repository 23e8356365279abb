from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped] # it ships no annotations
from typer.testing import CliRunner

from tests.messages.examples import URL, read, read_job
from tests.messages.test_request import valid_requests
from v2td.cli import schema as schema_command
from v2td.jobs import Job
from v2td.messages import message_schema
from v2td.messages.request import Request

SCHEMA = message_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def test_it_is_a_complete_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["$id"] == "urn:v2td:schema:message"
    assert SCHEMA["title"]
    assert SCHEMA["additionalProperties"] is False
    assert set(SCHEMA["properties"]) == set(Request.model_fields)
    assert all(field["description"] for field in SCHEMA["properties"].values())


def test_its_examples_are_jobs() -> None:
    for example in SCHEMA["examples"]:
        VALIDATOR.validate(example)
        read_job(example)
    for key, field in SCHEMA["properties"].items():
        for example in field.get("examples", []):
            read_job({"audio_url": URL, key: example})


def test_the_command_prints_it() -> None:
    result = CliRunner().invoke(schema_command.app, ["message"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == SCHEMA


_values: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 20),
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not number.is_integer()),
    st.sampled_from(
        [
            "",
            "en",
            "vi",
            "xx",
            "mix",
            "split",
            "local",
            "demo",
            "transcribe",
            "a\0b",
            URL,
            "x" * 300,
            "http://u@h/",
            "https://h:1?q",
        ]
    ),
    st.lists(st.sampled_from(["en", "xx", 5, None]), max_size=3),
    st.sampled_from([{}, {"a": [1]}, {"bucket": "b", "key": "k", "formats": ["txt"]}, {"bucket": 5}]),
)
# What the schema can say only loosely has its own tests: expires_at (format), model (the one loaded),
# language with languages, text inside metadata.
_loose = {"expires_at", "model", "language"}
_keys = st.sampled_from([*(set(Request.model_fields) - _loose), "beamsize"])


@given(valid_requests, st.dictionaries(_keys, _values, max_size=2), st.sets(_keys, max_size=1))
def test_schema_and_parser_agree(fields: dict[str, Any], changes: dict[str, Any], missing: set[str]) -> None:
    message = {key: value for key, value in {**fields, **changes}.items() if key not in missing | _loose}
    (outcome,) = read(message)
    assert VALIDATOR.is_valid(message) == isinstance(outcome, Job), outcome


@pytest.mark.parametrize("code", ["en", "yue", "xx", "", "EN", None, 5, ["en"]])
def test_schema_and_parser_agree_on_languages(code: Any) -> None:
    message = {"audio_url": URL, "language": code}
    (outcome,) = read(message)
    assert VALIDATOR.is_valid(message) == isinstance(outcome, Job)
