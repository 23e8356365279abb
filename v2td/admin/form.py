"""The fields of an upload, as OpenAI's API has them: the one definition, from which parser and OpenAPI come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from v2td.admin.refusals import RefusedError
from v2td.jobs import Channels, Options, Task
from v2td.messages.request import MAX_PROMPT, Language, Name, Prompt
from v2td.messages.strict_json import shown

FILE = "file"
ENGINE_ALIAS = "whisper-1"  # what everybody's programs ask for
Format = Literal["json", "text", "srt", "verbose_json", "vtt"]
Granularity = Literal["word", "segment"]

_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def _flag(value: object) -> object:
    """Return what a form says; pydantic takes `y` and `off` too, which nobody means."""
    return _FLAGS.get(value.lower(), value) if isinstance(value, str) else value


def _as_sent(schema: dict[str, Any]) -> None:
    """Describe what is sent: the recording, too, which goes to the disk, and no null, which forms do not have."""
    for described in schema["properties"].values():
        if "anyOf" in described:
            described.update(next(each for each in described.pop("anyOf") if each != {"type": "null"}))
            described.pop("default")
    recording = {"type": "string", "format": "binary", "description": "In any format that can be decoded."}
    schema["properties"] = {FILE: recording, **schema["properties"]}
    schema["required"] = [FILE]
    times = {"properties": {"timestamp_granularities[]": {"minItems": 1}}, "required": ["timestamp_granularities[]"]}
    verbose = {"properties": {"response_format": {"const": "verbose_json"}}, "required": ["response_format"]}
    streams = {"properties": {"stream": {"const": True}}, "required": ["stream"]}
    schema["allOf"] = [  # what _agree says
        {"if": times, "then": verbose},
        {"if": streams, "then": {"properties": {"response_format": {"const": "json"}}}},
        {"not": {"required": ["language", "languages[]"]}},
    ]


class Form(BaseModel):
    """A recording to transcribe. A field that is empty is as good as left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_as_sent)

    model: Name | None = Field(
        None, description="One of /v1/models, or whisper-1 for the engine's; the rules of [routing] choose if absent."
    )
    language: Language | None = Field(None, description="Spoken language; detected when absent.", examples=["en"])
    prompt: Prompt | None = Field(None, description="Text that the model takes as spoken before.")
    response_format: Format = Field("json", description="What the answer is.")
    temperature: Annotated[float, Field(ge=0, le=1)] = Field(
        0, description="Taken and not used: a window that is heard badly is tried again at higher ones anyway."
    )
    timestamp_granularities: tuple[Granularity, ...] = Field(
        (), description="What verbose_json has times of; segments if absent.", alias="timestamp_granularities[]"
    )
    stream: Annotated[bool, BeforeValidator(_flag)] = Field(
        False, description="Send the text as it is heard, as server-sent events; with json only."
    )
    chunking_strategy: Literal["auto"] = Field("auto", description="Voice activity decides, always.")
    languages: tuple[Language, ...] = Field(
        (), description="Languages that detection may choose from; all if absent.", alias="languages[]"
    )
    keywords: tuple[Name, ...] = Field((), description="Words to expect, such as names.", alias="keywords[]")
    beam_size: Annotated[int, Field(ge=1, le=16)] | None = Field(None, description="v2td's own: beams.")
    channels: Channels = Field("mix", description="v2td's own; split: transcribe each channel by itself.")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.timestamp_granularities and self.response_format != "verbose_json":
            raise PydanticCustomError("format", "timestamp_granularities[] needs response_format verbose_json")
        if self.stream and self.response_format != "json":
            raise PydanticCustomError("format", "stream needs response_format json")
        if self.language and self.languages:
            raise PydanticCustomError("languages", "language says what languages[] lets be detected: leave one out")
        if len(self._hotwords or "") > MAX_PROMPT:
            most = {"most": MAX_PROMPT}
            raise PydanticCustomError("keywords", "keywords[] may have {most} characters in all, with commas", most)
        return self

    @property
    def _hotwords(self) -> str | None:
        return ", ".join(self.keywords) or None

    def options(self, task: Task) -> Options:
        """Return what this means to a job."""
        return Options(
            language=self.language,
            languages=self.languages,
            task=task,
            prompt=self.prompt,
            hotwords=self._hotwords,
            beam_size=self.beam_size,
            word_timestamps="word" in self.timestamp_granularities,
            channels=self.channels,
        )

    def known_model(self, models: Sequence[str]) -> str | None:
        """Return the model by its own name, None when none is asked for; raises RefusedError when it is not there."""
        if self.model is None or self.model in models:
            return self.model
        if self.model == ENGINE_ALIAS:
            return models[0]
        there = ", ".join((*models, ENGINE_ALIAS))
        message = f"model: {shown(self.model)} is none of those that are there ({there})"
        raise RefusedError(404, message, code="model_not_found", param="model")


# Names of fields, as senders write them: a list's brackets may be left out.
_NAMES = {name: field.alias or name for name, field in Form.model_fields.items()}
_LISTS = {field.alias or name for name, field in Form.model_fields.items() if get_origin(field.annotation) is tuple}


def known_name(name: str) -> str:
    """Return a field's name as Form has it; raises RefusedError when there is none of that name."""
    if (found := _NAMES.get(name.removesuffix("[]"))) is None or (name.endswith("[]") and found not in _LISTS):
        guess = get_close_matches(name, (FILE, *_NAMES.values()), n=1, cutoff=0.5)
        hint = f"; did you mean {guess[0]}?" if guess else ""
        raise RefusedError(400, f"unknown field {shown(name)}{hint}", code="unknown_parameter")
    return found


def parse(fields: Mapping[str, Sequence[str]]) -> Form:
    """Return what the fields say; raises RefusedError that names the first wrong one."""
    values: dict[str, Any] = {}
    for name, given in fields.items():
        if name not in _LISTS and len(given) > 1:
            raise RefusedError(400, f"{name}: is there {len(given)} times", code="invalid_value", param=name)
        if said := [each for each in given if each]:
            values[name] = said if name in _LISTS else said[0]
    try:
        return Form.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        param = str(first["loc"][0]) if first["loc"] else None
        message = f"{param}: {first['msg']}" if param else first["msg"]
        if param and isinstance(first["input"], str) and (value := shown(first["input"])) not in message:
            message += f" ({value})"
        raise RefusedError(400, message, code="invalid_value", param=param) from None
