"""What the transcription API answers, for its description in OpenAPI."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ApiFault(_Shape):
    """What is wrong with a request."""

    message: str
    type: str
    param: str | None = Field(description="The field to blame.")
    code: str | None = Field(description="For programs; of a recording that failed, v2td's class of error.")


class ApiError(_Shape):
    """An error as OpenAI has it."""

    error: ApiFault


class Usage(_Shape):
    """What a request took."""

    type: Literal["duration"]
    seconds: float = Field(description="Of audio.")


class TextOnly(_Shape):
    """The answer as json."""

    text: str
    usage: Usage


class TranscribedWord(_Shape):
    """A word; times in seconds of the recording."""

    word: str
    start: float
    end: float
    probability: float


class TranscribedSegment(_Shape):
    """A stretch of text; times in seconds of the recording."""

    id: int
    seek: int = Field(description="Its start in hundredths of a second.")
    start: float
    end: float
    text: str
    tokens: list[int] = Field(description="Always empty: they are not kept.")
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    channel: int | None = Field(None, description="Whose it is, where channels were split.")


class Verbose(_Shape):
    """The answer as verbose_json."""

    task: Literal["transcribe", "translate"]
    language: str = Field(description="Its name in English; empty where there is no speech.")
    duration: float = Field(description="Seconds of audio.")
    text: str
    segments: list[TranscribedSegment] | None = None
    words: list[TranscribedWord] | None = None
    usage: Usage


class Model(_Shape):
    """A model that can be asked for."""

    id: str
    object: Literal["model"]
    created: int = Field(description="When this daemon began.")
    owned_by: str


class Models(_Shape):
    """All of them; the engine's own comes first."""

    object: Literal["list"]
    data: list[Model]


API_SHAPES: tuple[type[BaseModel], ...] = (ApiError, TextOnly, Verbose, Model, Models)
ERROR = "ApiError"


def _json(*shapes: type[BaseModel]) -> dict[str, Any]:
    refs = [{"$ref": f"#/components/schemas/{shape.__name__}"} for shape in shapes]
    return {"application/json": {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}}


def _answer(what: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"200": {"description": what, "content": content}, "5XX": {"$ref": f"#/components/responses/{ERROR}"}}


_TEXT = {"schema": {"type": "string"}}
TEXT_ANSWER = _answer(
    "What is said.",
    _json(TextOnly, Verbose)
    | dict.fromkeys(("text/plain", "application/x-subrip", "text/vtt"), _TEXT)
    | {"text/event-stream": {}},  # OpenAPI 3.1 has no word for what its events are
)
MODELS_ANSWER = _answer("All of them.", _json(Models))
MODEL_ANSWER = _answer("This one.", _json(Model))
