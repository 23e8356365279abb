"""Who speaks OTLP with the collector: OpenTelemetry's own exporters."""

from __future__ import annotations

import logging
from enum import Enum

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from v2td.config import TracingSettings
from v2td.errors import ServiceError

HTTP_PATH = "/v1/traces"


def exporter_of(settings: TracingSettings) -> SpanExporter:
    """Return the exporter; it has not connected yet.

    Of OpenTelemetry's environment variables those of certificates and of compression count.
    """
    token = settings.authorization
    headers = {} if token is None else {"authorization": token.get_secret_value()}
    return _over_grpc(settings, headers) if settings.protocol == "grpc" else _over_http(settings, headers)


def reach(settings: TracingSettings) -> None:
    """Send a request without spans; blocks. ServiceError where the collector does not take it."""
    answers, exporter = Answers(), exporter_of(settings)
    answers.listen()
    try:
        if exporter.export([]) is not SpanExportResult.SUCCESS:
            raise ServiceError(
                "send spans", f"{settings.endpoint}: {answers.last}", "see tracing.endpoint and tracing.authorization"
            )
    finally:
        exporter.shutdown()


def _over_grpc(settings: TracingSettings, headers: dict[str, str]) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 (20 MB)

    return OTLPSpanExporter(
        endpoint=settings.endpoint,
        insecure=not settings.endpoint.startswith("https:"),
        headers=headers or {"x-v2td": "1"},  # without any it takes those of the environment
        timeout=settings.timeout_seconds,
    )


def _over_http(settings: TracingSettings, headers: dict[str, str]) -> SpanExporter:
    import requests  # noqa: PLC0415 (gRPC does without)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 (the same)

    session = requests.Session()
    session.trust_env = False  # a .netrc would take the place of our authorization
    return OTLPSpanExporter(
        endpoint=settings.endpoint.rstrip("/") + HTTP_PATH,
        headers=headers,
        timeout=settings.timeout_seconds,
        session=session,
    )


class Answers(logging.Handler):
    """Hears from the exporters why they failed.

    `last` is a code's name: an answer's words may hold what it was told.
    """

    def __init__(self) -> None:
        super().__init__()
        self.last = "it does not answer"

    def listen(self) -> None:
        """Hear all that OpenTelemetry says, instead of whoever did."""
        logger = logging.getLogger("opentelemetry")
        logger.handlers[:] = [self]
        logger.propagate = False
        logger.setLevel(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the code of an answer, and nothing of the warnings of headers, in the words of whoever sent them."""
        if not record.name.startswith("opentelemetry.exporter"):
            return
        arguments = record.args if isinstance(record.args, tuple) else ()
        codes = (
            each.name if isinstance(each, Enum) else str(each) for each in arguments if isinstance(each, Enum | int)
        )
        self.last = next(codes, self.last)
