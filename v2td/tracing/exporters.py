"""Who speaks OTLP with the collector: OpenTelemetry's own exporters."""

from __future__ import annotations

from opentelemetry.sdk.trace.export import SpanExporter

from v2td.config import TracingSettings

HTTP_PATH = "/v1/traces"


def exporter_of(settings: TracingSettings) -> SpanExporter:
    """Return the exporter; it has not connected yet.

    Of OpenTelemetry's environment variables those of certificates and of compression count.
    """
    token = settings.authorization
    headers = {} if token is None else {"authorization": token.get_secret_value()}
    return _over_grpc(settings, headers) if settings.protocol == "grpc" else _over_http(settings, headers)


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
