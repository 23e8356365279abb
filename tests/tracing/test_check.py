"""`v2td check`, with a real collector and with none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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
