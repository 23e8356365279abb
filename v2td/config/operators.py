"""The settings of what tells people and other programs what goes on: webhooks and traces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from v2td.config.values import Count, Seconds, Section, Text

Event = Literal["transcribed", "failed"]


class WebhookSettings(Section):
    """POST requests that say that a job has ended, signed as Standard Webhooks has it."""

    url: Text | None = Field(
        None, description="Who is told of every job; a message's own `webhook_url` is told besides. http or https."
    )
    secret: Annotated[SecretStr, Field(min_length=24)] | None = Field(
        None,
        description="Key of the signatures: `whsec_` and 24 to 64 bytes in base64 "
        "(`echo whsec_$(openssl rand -base64 32)`). Without it no message may name a webhook_url.",
    )
    old_secret: Annotated[SecretStr, Field(min_length=24)] | None = Field(
        None, description="The key before, with which all is signed as well while receivers change over."
    )
    events: tuple[Event, ...] = Field(("transcribed", "failed"), description="What `url` is told of.")
    attempts: Count = Field(10, description="Tries; then the delivery is dead, and `v2td webhooks retry` sends it.")
    initial_seconds: Seconds = Field(5, description="Pause before the second try, before jitter; each doubles it.")
    max_seconds: Seconds = Field(3600, description="Longest pause, also for a Retry-After.")
    timeout_seconds: Seconds = Field(15, description="Longest wait for an answer.")
    concurrency: Count = Field(16, description="Requests under way at once, four to one host at most.")
    keep_days: Count = Field(30, description="Days that deliveries, dead ones too, stay in the table `webhooks`.")

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """All that is sent is signed."""
        if self.url is not None and self.secret is None:
            yield "secret", "set together with url (echo whsec_$(openssl rand -base64 32))"
        if self.old_secret is not None and self.secret is None:
            yield "old_secret", "unset while secret is"
        if self.max_seconds < self.initial_seconds:
            yield "max_seconds", f"at least initial_seconds ({self.initial_seconds:g})"


class TracingSettings(Section):
    """Spans by OpenTelemetry, sent by OTLP; takes the extra `tracing`."""

    enabled: bool = Field(False, description="Send spans: one for each job, its stages and its windows.")
    endpoint: Text = Field(
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
