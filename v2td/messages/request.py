"""What a message may say: the one definition, from which parser and JSON Schema come."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic_core import ErrorDetails, PydanticCustomError
from typing_extensions import TypeAliasType

from v2td.config import LOCAL, Format, Settings
from v2td.config.languages import LANGUAGES
from v2td.errors import ErrorClass, JobError
from v2td.jobs import Channels, Task
from v2td.messages.storable import is_storable, storable
from v2td.messages.strict_json import shown

MAX_ID = 256
MAX_KEY = 1024
MAX_URL = 8192
MAX_WEBHOOK_URL = 2048
MAX_PROMPT = 4096
_PROBLEMS_SHOWN = 3

_WEBHOOK_URL = r"^[Hh][Tt][Tt][Pp][Ss]?://[A-Za-z0-9._:\[\]-]+([/?#][^\u0000-\u0020\u007f]*)?$"
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _language(code: str) -> str:
    if code in LANGUAGES:
        return code
    guess = code[:2].lower()
    hint = f"did you mean {guess!r}?" if guess in LANGUAGES else "Whisper's codes look like 'en' or 'vi'"
    raise PydanticCustomError(
        "unknown_language", "unknown language {code}; {hint}", {"code": shown(code), "hint": hint}
    )


def _instant(value: object) -> datetime:
    if not isinstance(value, str):
        raise PydanticCustomError("instant_type", "Input should be a string")
    problem = PydanticCustomError("instant", "not an RFC 3339 time with an offset, such as 2030-01-31T12:00:00Z")
    if not _RFC_3339.fullmatch(value):
        raise problem
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise problem from None


def _is_webhook_url(url: str) -> bool:
    return re.match(_WEBHOOK_URL, url) is not None and not url.endswith("\n") and is_storable(url)


def _webhook_url(url: str) -> str:
    if _is_webhook_url(url):
        return url
    raise PydanticCustomError("webhook_url", "not http(s)://host[:port]/… (no user name, no blanks, the host in ASCII)")


# `storable` goes before pydantic, whose own word on a lone surrogate names neither it nor its place.
_NO_NUL: JsonDict = {"pattern": "^[^\\u0000]*$"}
Name = Annotated[str, Field(min_length=1, max_length=MAX_ID, json_schema_extra=_NO_NUL), BeforeValidator(storable)]
Key = Annotated[str, Field(min_length=1, max_length=MAX_KEY, json_schema_extra=_NO_NUL), BeforeValidator(storable)]
Url = Annotated[str, Field(min_length=1, max_length=MAX_URL, json_schema_extra=_NO_NUL), BeforeValidator(storable)]
WebhookUrl = Annotated[
    str,
    Field(min_length=1, max_length=MAX_WEBHOOK_URL, json_schema_extra={"pattern": _WEBHOOK_URL}),
    BeforeValidator(storable),
    AfterValidator(_webhook_url),
]
Prompt = Annotated[str, Field(max_length=MAX_PROMPT, json_schema_extra=_NO_NUL), BeforeValidator(storable)]
Language = TypeAliasType(
    "Language", Annotated[str, AfterValidator(_language), Field(json_schema_extra={"enum": list(LANGUAGES)})]
)
Instant = Annotated[datetime, BeforeValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"})]
Metadata = Annotated[dict[str, Any], BeforeValidator(storable)]


class Part(BaseModel):
    """Strict (no coercion), frozen, unknown keys refused."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Output(Part):
    """Where the transcript goes besides Postgres."""

    bucket: Name = Field(description="Bucket of the configured object store.")
    key: Key = Field(description="Key without the format's suffix.")
    formats: Annotated[list[Format], Field(min_length=1, max_length=6)] = Field(description="Files to write.")


class Request(Part):
    """A recording to transcribe. null means the same as leaving a key out."""

    audio_url: Url = Field(
        description="Where the recording is: http, https, s3 (the key as it is, not percent-encoded) or, under "
        "configured roots, file.",
        examples=["https://example.com/call.mp3", "s3://recordings/2030/call 1.wav"],
    )
    id: Name | None = Field(None, description="The producer's own name for the job; need not be unique.")
    language: Language | None = Field(None, description="Spoken language; detected when absent.", examples=["en"])
    languages: Annotated[list[Language], Field(max_length=len(LANGUAGES))] = Field(
        [], description="Languages that detection may choose from; all when empty.", examples=[["en", "vi"]]
    )
    task: Task = Field("transcribe", description="translate: the text comes in English.")
    prompt: Prompt | None = Field(None, description="Text that the model takes as spoken before.")
    hotwords: Prompt | None = Field(None, description="Words to expect, such as names.")
    beam_size: Annotated[int, Field(ge=1, le=16)] | None = Field(None, description="Beams; engine.beam_size if absent.")
    word_timestamps: bool = Field(False, description="Keep start, end and probability of each word.")
    condition_on_previous_text: bool = Field(False, description="Let each window read what the one before said.")
    multilingual: bool = Field(
        False, description="Detect the language in every window, among languages; not together with language."
    )
    channels: Channels = Field(
        "mix", description="split: transcribe each channel by itself, such as the two parties of a call."
    )
    priority: Annotated[int, Field(ge=0, le=9)] = Field(5, description="0 is most urgent.")
    provider: Name | None = Field(
        None, description="Who transcribes: local, or a configured provider or group; the rules decide when absent."
    )
    model: Name | None = Field(
        None, description="The model expected; refused when neither the engine nor a provider has it."
    )
    version_id: Name | None = Field(
        None, description="Version of the object that an s3 URL names; the newest if absent."
    )
    tenant: Name | None = Field(None, description="Whose recording this is.")
    expires_at: Instant | None = Field(
        None,
        description="RFC 3339 time with an offset; a job whose transcription has not begun by then fails as `expired`.",
        examples=["2030-01-31T12:00:00+07:00"],
    )
    webhook_url: WebhookUrl | None = Field(
        None,
        description="Who is told when the job has ended, by a signed POST request; takes webhooks.secret.",
        examples=["https://example.com/transcribed"],
    )
    output: Output | None = Field(None, description="Files to write besides the rows.")
    metadata: Metadata = Field({}, description="Kept with the transcript, equal as a JSON value.")

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, fields: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in fields.items() if value is not None}

    @model_validator(mode="after")
    def _languages_agree(self) -> Self:
        if self.language and self.languages and self.language not in self.languages:
            raise PydanticCustomError("language_not_allowed", "language is not one of languages")
        if self.language and self.multilingual:
            raise PydanticCustomError(
                "language_not_detected", "language says what multilingual is to detect: leave one of them out"
            )
        return self


_DEFAULTS = {key: field.default for key, field in Request.model_fields.items()}  # a property of pydantic's, and slow


@dataclass(frozen=True, slots=True)
class Known:
    """What messages may ask for: providers and groups, and models; others where packages bring their own.

    `webhooks` says whether there is a secret to sign with, so that messages may say who is told.
    """

    models: frozenset[str]
    providers: frozenset[str] = frozenset({LOCAL})
    others: bool = False  # whether there may be one is known when the job is routed
    webhooks: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return what is configured."""
        named = (each.model for each in settings.providers.openai)
        models = frozenset({settings.engine.model, *named, *settings.providers.ggml})
        return cls(
            models,
            settings.providers.targets,
            others=bool(settings.providers.plugins),
            webhooks=settings.webhooks.secret is not None,
        )


def parse_request(fields: Mapping[str, Any], *, ignore_unknown_keys: bool, known: Known) -> Request:
    """Check the keys of a job message.

    Raises:
        JobError: bad_message when a key is unknown, missing or of a wrong type; bad_field when a value is one
            that no feature or database can take.
    """
    unknown = [key for key in fields if key not in _DEFAULTS]
    if unknown and not ignore_unknown_keys:
        raise JobError(ErrorClass.BAD_MESSAGE, _unknown_keys(unknown))
    try:
        request = Request.model_validate({key: fields[key] for key in fields if key in _DEFAULTS})
    except ValidationError as error:
        raise _job_error(error.errors(include_url=False, include_context=False)) from None
    if request.webhook_url is not None and not known.webhooks:
        raise JobError(ErrorClass.BAD_FIELD, "webhook_url: nobody is told here, since webhooks.secret is not set")
    if request.model is not None and request.model not in known.models and not known.others:
        there = ", ".join(sorted(known.models))
        raise JobError(ErrorClass.BAD_FIELD, f"model: {shown(request.model)} is none of those that are there ({there})")
    if request.provider is not None and request.provider not in known.providers:
        there = ", ".join(sorted(known.providers))
        raise JobError(ErrorClass.BAD_FIELD, f"provider: {shown(request.provider)} is none of {there}")
    return request


def webhook_url_of(fields: Mapping[str, Any]) -> str | None:
    """Return who is to be told that a message was refused, where at least that is as it should be."""
    url = fields.get("webhook_url")
    return url if isinstance(url, str) and len(url) <= MAX_WEBHOOK_URL and _is_webhook_url(url) else None


def _unknown_keys(unknown: list[str]) -> str:
    guesses = get_close_matches(unknown[0], _DEFAULTS, n=1, cutoff=0.5)
    guess = f"; did you mean {guesses[0]!r}?" if guesses else ""
    more = f" and {len(unknown) - 1} more" if unknown[1:] else ""
    return f"unknown key {shown(unknown[0])}{guess}{more}"


def _job_error(problems: list[ErrorDetails]) -> JobError:
    malformed = [problem for problem in problems if _is_malformed(problem)]
    told = [f"{_place(problem)}{problem['msg']}" for problem in (malformed or problems)[:_PROBLEMS_SHOWN]]
    return JobError(ErrorClass.BAD_MESSAGE if malformed else ErrorClass.BAD_FIELD, "; ".join(told))


def _is_malformed(problem: ErrorDetails) -> bool:
    kind = problem["type"]
    if kind == "literal_error":
        return not isinstance(problem["input"], str)
    no_url = problem["loc"] == ("audio_url",) and kind == "string_too_short"
    return no_url or kind in ("missing", "extra_forbidden") or kind.endswith("_type")


def _place(problem: ErrorDetails) -> str:
    parts = problem["loc"]
    if problem["type"] == "extra_forbidden":  # its last part is a stranger's, all others are our names
        parts = (*parts[:-1], shown(str(parts[-1])))
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return f"{path.removeprefix('.')}: " if path else ""
