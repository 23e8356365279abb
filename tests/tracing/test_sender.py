"""What is sent, and what is lost where nobody takes it, to a real receiver without a daemon."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from tests.services import build, otlp
from tests.services.otlp import Receiver
from tests.services.processes import free_ports
from v2td.board import Finished
from v2td.config import KafkaSettings, TracingSettings
from v2td.errors import ErrorClass
from v2td.jobs import Coordinates, Failure, Job, SourceRecord
from v2td.stages import Trail
from v2td.tracing import opened
from v2td.tracing.sender import MAX_WAITING

KAFKA = KafkaSettings(bootstrap_servers=("127.0.0.1:9092",), topics=("jobs",))
RECORD = SourceRecord(None, b"", ())


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    logger = logging.getLogger("opentelemetry")
    before = logger.handlers[:], logger.propagate, logger.level
    exporter = logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter")
    exporter.filters.clear()  # one lets nothing through that was said a moment ago, as by the test before
    yield
    logger.handlers[:], logger.propagate, logger.level = before


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Receiver]:
    async with otlp.running(build.built("otlp"), tmp_path) as running:
        yield running


def failed(number: int, url: str = "http://host/a.wav") -> tuple[Trail, Failure]:
    at = Coordinates("cluster", "jobs", 0, number, 1_700_000_000_000)
    trail = Trail(Job(at, url, job_id=f"job-{number}", record=RECORD))
    return trail, Failure(at, ErrorClass.NOT_FOUND, "\ud800 nowhere", 1, RECORD)


def counted(result: str) -> float:
    return REGISTRY.get_sample_value("v2td_spans_total", {"result": result}) or 0.0


def settings(endpoint: str, **more: Any) -> TracingSettings:
    return TracingSettings(enabled=True, endpoint=endpoint, **more)


async def until(receiver: Receiver, count: int) -> None:
    async with asyncio.timeout(60):
        while len(receiver.spans) < count:
            await asyncio.sleep(0.05)


async def test_all_that_waits_is_sent_at_the_end(receiver: Receiver) -> None:
    """Also what no protobuf would take as it came; more than one request holds."""
    before = counted("sent")
    async with opened(settings(receiver.http, protocol="http"), KAFKA) as tracer:
        assert tracer is not None
        for number in range(600):
            trail, failure = failed(number, "http://u:p@host/\ud800?token=x" + "a" * 5000)
            tracer.opened(trail)
            tracer.closed(trail, failure)
            tracer.committed(Finished(trail, time.monotonic(), None, None, None, None, committed=time.monotonic()))
    assert counted("sent") - before == 1200
    jobs = [each for each in receiver.spans if each.name == "job"]
    assert {each.attributes["v2td.job_id"] for each in jobs} == {f"job-{number}" for number in range(600)}
    assert all(each.status["message"] == "not_found: \\ud800 nowhere" for each in jobs)
    assert len(receiver.requests) > 2
    assert "token" not in str(receiver.requests)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_nobody_waits_for_a_collector_that_hangs(receiver: Receiver, protocol: str) -> None:
    """Jobs beyond the bound are lost at once, and the end comes long before the collector's time is over."""
    lost, endpoint = counted("lost"), getattr(receiver, protocol)
    with capture_logs() as logs:
        async with (
            asyncio.timeout(60),
            opened(settings(endpoint, protocol=protocol, timeout_seconds=600), KAFKA) as tracer,
        ):
            assert tracer is not None
            receiver.freeze()
            for number in range(MAX_WAITING * 2):
                trail, failure = failed(number)
                tracer.opened(trail)
                tracer.closed(trail, failure)
    receiver.thaw()
    assert counted("lost") - lost == MAX_WAITING * 2
    said = [each for each in logs if each["event"] == "spans lost"]
    assert sum(each["spans"] for each in said) == MAX_WAITING * 2
    assert said[-1]["why"] == "it does not answer"


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_refusal_is_told_by_its_code(protocol: str) -> None:
    """Nobody listens there; the log says so once, in our words."""
    (port,) = free_ports(1)
    trail, failure = failed(1)
    with capture_logs() as logs:
        async with opened(
            settings(f"http://127.0.0.1:{port}", protocol=protocol, timeout_seconds=0.5), KAFKA
        ) as tracer:
            assert tracer is not None
            tracer.opened(trail)
            tracer.closed(trail, failure)
    (line,) = (each for each in logs if each["event"] == "spans lost")
    assert line["endpoint"] == f"http://127.0.0.1:{port}"
    codes = ("UNAVAILABLE", "DEADLINE_EXCEEDED")  # the latter where the machine is slower than the refusal
    assert line["why"] in (codes if protocol == "grpc" else ("it does not answer",))
