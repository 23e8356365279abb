"""What settings are made of: the kinds of value they share, and the table of config.toml they stand in."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError


def _absolute(path: Path) -> Path:
    if not path.is_absolute():  # a service's working directory is nothing to rely on
        raise ValueError("not absolute")
    return path


def _postgres(dsn: SecretStr) -> SecretStr:
    if not dsn.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("not a Postgres URL")
    return dsn


Network = IPv4Network | IPv6Network
Seconds = Annotated[float, Field(gt=0, le=1_000_000)]  # as milliseconds they still fit Kafka's 32 bits
Count = Annotated[int, Field(ge=1)]
Processes = Annotated[int, Field(ge=0, le=1024)]
Port = Annotated[int, Field(ge=0, le=65535)]
Text = Annotated[str, Field(min_length=1)]
Topic = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$", examples=["v2td-jobs"])]
TopicLanguage = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}=[a-z]{2,3}$", examples=["v2td-jobs=vi"])]
Broker = Annotated[str, Field(pattern=r"^\S+:\d{1,5}$", examples=["kafka.example.com:9092"])]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Dsn = Annotated[SecretStr, AfterValidator(_postgres), Field(examples=["postgresql://user:password@host/name"])]


class Section(BaseModel):
    """A table of config.toml: frozen, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True, allow_inf_nan=False
    )

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Settings that are fine alone but not together: (key, what it must be)."""
        yield from ()

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        found = tuple(self.contradictions())
        if found:
            text = "; ".join(f"{key} must be {requirement}" for key, requirement in found)
            raise PydanticCustomError("contradiction", "{text}", {"text": text, "contradictions": found})
        return self
