"""The settings of who transcribes: providers beside the engine, and the rules that choose one for each job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_core import PydanticCustomError

from v2td.config.languages import LANGUAGES
from v2td.config.rules import contradictions
from v2td.config.values import AbsolutePath, Count, Seconds, Section, Text, Topic

LOCAL = "local"  # the engine's own name among the providers
MB = 1_000_000  # bytes, as in the labels of v2t_transcription_duration_seconds


def _language(code: str) -> str:
    if code not in LANGUAGES:
        raise PydanticCustomError("requirement", "must be {requirement}", {"requirement": "one of Whisper's languages"})
    return code


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$", examples=["whisper_cpp_zh"])]
Url = Annotated[str, Field(pattern=r"^https?://[^@\s]+$", examples=["https://api.openai.com/v1"])]
Language = Annotated[str, AfterValidator(_language), Field(examples=["zh"])]
Whole = Annotated[int, Field(ge=0)]
Weight = Annotated[int, Field(ge=1, le=1000)]


class ProviderSettings(Section):
    """What every provider's table has."""

    name: Name = Field(description="Its name in rules, rows and metrics.")
    group: Name | None = Field(
        None, description="A name that several providers share: who names it gets one of them, by weight and health."
    )
    weight: Weight = Field(1, description="Its share among those of its group.")
    concurrency: Whole = Field(
        0, description="Jobs at once; 0: what suits its kind (an API 5, 10 or 20 by queue depth, whisper.cpp 1)."
    )


class WhisperCppSettings(ProviderSettings):
    """whisper.cpp: a model in a pinned child process of ours, or its HTTP server."""

    model: AbsolutePath | None = Field(None, description="A GGML file, for a child process of ours.")
    server_url: Annotated[str, Field(pattern=r"^https?://[^@\s]+$", examples=["http://127.0.0.1:8080"])] | None = Field(
        None, description="Or whisper.cpp's server, which has a model of its own."
    )
    model_name: Text | None = Field(None, description="The model's name in rows; the file's name when unset.")
    threads: Whole = Field(0, description="0: two less than there are cores (8: 6, 10: 8, 12: 10).")
    cpus: tuple[Whole, ...] = Field((), description="CPUs to be pinned to; the first `threads` we may use when empty.")
    beam_size: Annotated[int, Field(ge=1, le=8)] = Field(5, description="Beams, where a message does not say.")
    window_seconds: Seconds = Field(300, description="Longest wait for one window; then the child is replaced.")

    @property
    def known_model(self) -> str | None:
        """Return the model's name in rows; None when only the server knows it."""
        return self.model_name or (self.model.stem if self.model else None)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """It is one of the two; a server has threads and CPUs of its own."""
        if (self.model is None) == (self.server_url is None):
            yield "model", "set, or server_url, and not both"
        elif self.server_url is not None:
            for name in ("threads", "cpus"):
                if getattr(self, name):
                    yield name, "left out with server_url: they are the server's to choose"


class OpenAISettings(ProviderSettings):
    """An API like OpenAI's /v1/audio/transcriptions."""

    base_url: Url = Field(description="Where the API is, with its version.")
    api_key: SecretStr | None = Field(None, description="Sent as Authorization: Bearer …")
    model: Text = Field("whisper-1", description="Model to ask for.")
    max_bytes: Count = Field(25 * MB, description="Largest upload; longer recordings are sent in chunks.")
    chunk_seconds: Seconds = Field(600, description="Longest chunk, cut at silences.")
    codec: Literal["opus", "flac", "original"] = Field(
        "opus",
        description="What recordings are packed as where uploads get smaller by it; original: none, within max_bytes.",
    )
    temperature: Annotated[float, Field(ge=0, le=1)] = Field(0, description="Sampling temperature to ask for.")
    requests_per_minute: Whole = Field(0, description="Requests at most; 0: any.")
    cost_per_minute: Annotated[float, Field(ge=0)] = Field(
        0, description="Price of a minute of audio, in the currency of your bill; only counted."
    )
    connections: Count = Field(100, description="Idle connections kept in all.")
    connections_per_host: Count = Field(10, description="Connections to one host.")
    idle_seconds: Seconds = Field(90, description="An idle connection is closed after this.")
    total_seconds: Seconds = Field(300, description="Longest request, upload included.")
    connect_seconds: Seconds = Field(10, description="Longest wait for a connection.")
    ca_file: AbsolutePath | None = Field(None, description="CA certificates of the API; the system's when unset.")


class PluginSettings(ProviderSettings):
    """A provider of somebody else's package: an entry point of the group v2td.providers."""

    entry_point: Text = Field(description="Name of the entry point.")
    options: dict[str, SecretStr] = Field({}, description="What it is given; each value is a secret.")


class ProvidersSettings(Section):
    """Who transcribes besides the engine, which is called local."""

    health_seconds: Seconds = Field(30, description="How often each is asked whether it is well.")
    breaker_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="A provider is left alone when more of its jobs fail or are slow; 1: never."
    )
    breaker_seconds: Seconds = Field(60, description="Over this long.")
    breaker_jobs: Count = Field(5, description="Fewer jobs than this say nothing.")
    breaker_pause_seconds: Seconds = Field(30, description="For so long at first; each further time is twice as long.")
    slow_factor: Annotated[float, Field(gt=0)] = Field(
        10, description="A job is slow when it takes this many times as long as its audio, and slow_seconds besides."
    )
    slow_seconds: Seconds = Field(60, description="No job is slow before this.")
    # Tables come last: in TOML what follows one belongs to it.
    whisper_cpp: tuple[WhisperCppSettings, ...] = Field((), description="whisper.cpp, several of them if you like.")
    openai: tuple[OpenAISettings, ...] = Field((), description="APIs like OpenAI's.")
    plugins: tuple[PluginSettings, ...] = Field((), description="Providers of other packages.")

    @property
    def all(self) -> tuple[ProviderSettings, ...]:
        """Return every table."""
        return (*self.whisper_cpp, *self.openai, *self.plugins)

    @property
    def ggml(self) -> frozenset[str]:
        """Return the models of whisper.cpp by their names in rows, as far as they are said."""
        return frozenset(name for each in self.whisper_cpp if (name := each.known_model) is not None)

    @property
    def targets(self) -> frozenset[str]:
        """Return what a rule or a message may name: providers, groups and the engine."""
        groups = {each.group for each in self.all if each.group}
        return frozenset({LOCAL, *groups, *(each.name for each in self.all)})

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Names are unique, and no group is called like a provider."""
        names = [LOCAL, *(each.name for each in self.all)]
        for kind in ("whisper_cpp", "openai", "plugins"):
            for each in getattr(self, kind):
                if names.count(each.name) > 1:
                    yield kind, f"providers with names of their own ({each.name} is there twice)"
                if each.group in names:
                    yield kind, f"groups that are called like no provider ({each.group} is one)"


class RuleSettings(Section):
    """Which jobs go to whom. What is left out fits every job; a range is [from, below], or [from] for no end."""

    name: Name = Field(description="What the rule is called in rows and explanations.")
    provider: Name = Field(description="A provider or a group.")
    priority: int = Field(0, description="The fitting rule with the highest number wins; of equals the first.")
    file_size_bytes: tuple[Whole, ...] = Field((), description="Range of the file's size in bytes.")
    duration_seconds: tuple[Annotated[float, Field(ge=0)], ...] = Field((), description="Range of the duration.")
    language: Language | None = Field(None, description="Language, as the message says or else as it is detected.")
    job_priority: tuple[Annotated[int, Field(ge=0, le=9)], ...] = Field((), description="Priorities of messages.")
    topic: Topic | None = Field(None, description="Topic the message came by.")
    tenant: Text | None = Field(None, description="Tenant the message names.")
    metadata_key: Text | None = Field(None, description="A key of the message's metadata…")
    metadata_value: Text | None = Field(None, description="…and its value, as text; any when unset.")
    fallback: tuple[Name, ...] = Field((), description="Who is asked next when it fails; routing.fallback when empty.")

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Ranges have one end or two, in order."""
        for name in ("file_size_bytes", "duration_seconds"):
            found = getattr(self, name)
            if len(found) > 2 or (len(found) == 2 and found[0] >= found[1]):
                yield name, "[from, below] with from < below, or [from]"
        if self.metadata_value is not None and self.metadata_key is None:
            yield "metadata_value", "set together with metadata_key"


class RoutingSettings(Section):
    """Which provider transcribes which job."""

    default: Name = Field(LOCAL, description="Who transcribes what no rule fits.")
    fallback: tuple[Name, ...] = Field((), description="Who is asked next, in this order, when a provider fails.")
    rules: tuple[RuleSettings, ...] = Field((), description="The first rule of the highest priority that fits decides.")

    @property
    def named(self) -> frozenset[str]:
        """Return every provider and group that is named."""
        of_rules = {name for rule in self.rules for name in (rule.provider, *rule.fallback)}
        return frozenset({self.default, *self.fallback, *of_rules})

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Rules have names of their own, can decide, and leave no doubt."""
        names = [rule.name for rule in self.rules]
        for name in names:
            if names.count(name) > 1:
                yield "rules", f"rules with names of their own ({name} is there twice)"
                return
        yield from contradictions(self.rules)
