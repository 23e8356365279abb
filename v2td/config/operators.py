"""The settings of what tells people and other programs what goes on: webhooks and traces."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_core import PydanticCustomError

from v2td.config.sources import HostPattern
from v2td.config.values import AbsolutePath, Count, Network, Port, Seconds, Section, Text

Event = Literal["transcribed", "failed"]

SECRET_PREFIX = "whsec_"  # noqa: S105 (of all of them)
SECRET_BYTES = range(24, 65)
_POSTED_TO = re.compile(r"(?i:https?)://[A-Za-z0-9._:\[\]-]+([/?#][^\x00-\x20\x7f]*)?")
_COLLECTOR = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?")


def _unfit(requirement: str) -> PydanticCustomError:
    return PydanticCustomError("requirement", "must be {requirement}", {"requirement": requirement})


def _secret(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(SECRET_PREFIX) or len(key) not in SECRET_BYTES:
        raise _unfit(f"{SECRET_PREFIX} and 24 to 64 bytes in base64: echo whsec_$(openssl rand -base64 32)")
    return secret


def _posted_to(url: str) -> str:
    if not _POSTED_TO.fullmatch(url):
        raise _unfit("an http or https URL without a user name, such as https://example.com/transcribed")
    return url


SigningSecret = Annotated[SecretStr, AfterValidator(_secret)]
PostedTo = Annotated[Text, AfterValidator(_posted_to), Field(examples=["https://example.com/transcribed"])]


class WebhookSettings(Section):
    """POST requests that say that a job has ended, signed as Standard Webhooks has it; fetch.denied_hosts holds too."""

    url: PostedTo | None = Field(
        None, description="Who is told of every job; a message's own `webhook_url` is told besides. http or https."
    )
    secret: SigningSecret | None = Field(
        None,
        description="Key of the signatures: `whsec_` and 24 to 64 bytes in base64 "
        "(`echo whsec_$(openssl rand -base64 32)`). Without it no message may name a webhook_url.",
    )
    old_secret: SigningSecret | None = Field(
        None, description="The key before, with which all is signed as well while receivers change over."
    )
    events: tuple[Event, ...] = Field(("transcribed", "failed"), description="What `url` is told of.")
    attempts: Count = Field(20, description="Tries; then the delivery is dead, and `v2td webhooks retry` sends it.")
    initial_seconds: Seconds = Field(5, description="Pause before the second try, before jitter; each doubles it.")
    max_seconds: Seconds = Field(3600, description="Longest pause, also for a Retry-After.")
    timeout_seconds: Seconds = Field(15, description="Longest wait for an answer.")
    concurrency: Count = Field(16, description="Requests under way at once, four to one host at most.")
    allowed_ports: tuple[Port, ...] = Field((80, 443), description="Ports that URLs may name; empty: any.")
    allowed_networks: tuple[Network, ...] = Field(
        (), description="Private networks that may be told all the same, such as 10.20.0.5/32; also those of `url`."
    )
    allowed_hosts: tuple[HostPattern, ...] = Field(
        (), description="When not empty, only these hosts; *.example.com stands for all below it."
    )
    ca_file: AbsolutePath | None = Field(
        None, description="CA certificates that sign receivers'; the system's when unset."
    )
    keep_days: Count = Field(30, description="Days that deliveries, dead ones too, stay in the table `webhooks`.")

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """All that is sent is signed."""
        if self.url is not None and self.secret is None:
            yield "secret", "set together with url (echo whsec_$(openssl rand -base64 32))"
        if self.old_secret is not None and self.secret is None:
            yield "old_secret", "unset while secret is"
        if self.max_seconds < self.initial_seconds:
            yield "max_seconds", f"at least initial_seconds ({self.initial_seconds:g})"


def _collector(url: str) -> str:
    if _COLLECTOR.fullmatch(url) is None:
        raise _unfit("http:// or https://, a host, and perhaps a port and a path")
    return url


class TracingSettings(Section):
    """Spans by OpenTelemetry, sent by OTLP; takes the extra `tracing`."""

    enabled: bool = Field(False, description="Send spans: one for each job, its stages and its windows.")
    endpoint: Annotated[Text, AfterValidator(_collector)] = Field(
        "http://127.0.0.1:4317", description="Where the collector listens: 4317 for grpc, 4318 for http by custom."
    )
    protocol: Literal["grpc", "http"] = Field("grpc", description="http: protobuf over HTTP, to `endpoint`/v1/traces.")
    authorization: SecretStr | None = Field(None, description="What is sent in the header `authorization`.")
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0, description="Share of jobs that are traced; a producer's own `traceparent` decides for its job."
    )
    windows: bool = Field(True, description="A span for each window too.")
    service_name: Text = Field("v2td", description="What the spans say is their service.")
    timeout_seconds: Seconds = Field(10, description="Longest wait for the collector; what it does not take is lost.")

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Only HTTP has paths."""
        if self.protocol == "grpc" and self.endpoint.removesuffix("/").count("/") > 2:
            yield "endpoint", "without a path where protocol is grpc"
