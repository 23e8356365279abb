"""The JSON Schema (draft 2020-12) of a job message, for producers."""

from __future__ import annotations

from typing import Any

from v2td.messages.request import Request


def message_schema() -> dict[str, Any]:
    """Return the schema as a JSON object.

    Beyond it the parser refuses what a schema cannot say: duplicate keys, lone surrogates, numbers outside
    double, integers written as 5.0, a language outside languages or with multilingual, a model that is not loaded,
    a webhook_url where nothing can be signed.
    """
    schema = Request.model_json_schema()
    allow_nulls(schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:v2td:schema:message",
        **schema,
        "title": "v2td job message",
        "examples": [
            {"audio_url": "s3://recordings/2030/call 1.wav"},
            {
                "audio_url": "https://example.com/call.mp3",
                "id": "call-4711",
                "languages": ["en", "vi"],
                "channels": "split",
                "word_timestamps": True,
                "priority": 2,
                "expires_at": "2030-01-31T12:00:00+07:00",
                "metadata": {"customer": 42},
            },
        ],
    }


def allow_nulls(schema: dict[str, Any]) -> None:
    """Say in pydantic's schema of a message that null is as good as nothing."""
    for name, field in schema["properties"].items():
        if name not in schema["required"]:
            _allow_null(field)


def _allow_null(field: dict[str, Any]) -> None:
    if "type" in field:  # else it is an anyOf that has null already
        field["type"] = [field["type"], "null"]
    if "enum" in field and None not in field["enum"]:
        field["enum"] = [*field["enum"], None]
