"""Where spans are sent."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from v2td.config import TracingSettings


@pytest.mark.parametrize(
    ("endpoint", "protocol"),
    [
        ("http://127.0.0.1:4317", "grpc"),
        ("http://localhost/", "grpc"),
        ("https://[::1]:4317", "grpc"),
        ("https://otel.example.com/otlp", "http"),
    ],
)
def test_addresses_of_collectors(endpoint: str, protocol: str) -> None:
    assert TracingSettings.model_validate({"endpoint": endpoint, "protocol": protocol}).endpoint == endpoint


@pytest.mark.parametrize(
    "endpoint", ["localhost:4317", "grpc://host:1", "http://", "http://u:p@host", "http://host/?a", "http://host\n"]
)
def test_what_is_no_address(endpoint: str) -> None:
    with pytest.raises(ValidationError, match="must be http:// or https://, a host"):
        TracingSettings.model_validate({"endpoint": endpoint, "protocol": "http"})


def test_grpc_has_no_paths() -> None:
    with pytest.raises(ValidationError, match="without a path where protocol is grpc"):
        TracingSettings(endpoint="http://host:4317/v1/traces")
