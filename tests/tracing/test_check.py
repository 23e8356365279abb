"""`v2td check`, with a real collector and with none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.services import build, otlp
from v2td.config import Settings, TracingSettings
from v2td.ops.check import Check, checkers, run


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    logger = logging.getLogger("opentelemetry")
    before = logger.handlers[:], logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate, logger.level = before


async def check(**tracing: Any) -> Check:
    settings = Settings(tracing=TracingSettings(enabled=True, **tracing))
    (found,) = await run("tracing", checkers(settings, offline=False)["tracing"], settings)
    return found


async def test_a_collector_and_none(tmp_path: Path) -> None:
    assert "tracing" not in checkers(Settings(), offline=False)
    async with otlp.running(build.built("otlp"), tmp_path) as receiver:
        for protocol in ("grpc", "http"):
            endpoint = getattr(receiver, protocol)
            found = await check(endpoint=endpoint, protocol=protocol)
            assert (found.ok, found.detail) == (True, f"a collector takes spans at {endpoint} over {protocol}")
        wrong = await check(endpoint=receiver.http + "/elsewhere", protocol="http")
        assert (wrong.ok, wrong.detail) == (False, f"send spans: {receiver.http}/elsewhere: 404")
    assert not (await check(endpoint=receiver.http, protocol="http", timeout_seconds=0.5)).ok


async def test_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only to a collector whose certificate is by a known authority; one of your own is named in the environment."""
    authority = trustme.CA()
    pem, trusted = tmp_path / "server.pem", tmp_path / "ca.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
    authority.cert_pem.write_to_path(trusted)
    async with otlp.running(build.built("otlp"), tmp_path, pem) as receiver:
        for protocol in ("grpc", "http"):
            asked = {"endpoint": getattr(receiver, protocol), "protocol": protocol}
            assert not (await check(**asked, timeout_seconds=0.5)).ok
            with monkeypatch.context() as patch:
                patch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(trusted))
                assert (await check(**asked)).ok
