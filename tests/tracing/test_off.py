"""Who does not trace has nothing of it: neither its packages nor its time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from v2td.board import Board
from v2td.jobs import Coordinates, Job
from v2td.stages import exemplar_of

OPEN = """
import asyncio, sys
import v2td.daemon, v2td.tracing
from v2td.config import KafkaSettings, TracingSettings
kafka = KafkaSettings(bootstrap_servers=("127.0.0.1:9092",), topics=("jobs",))

async def main(enabled):
    async with v2td.tracing.opened(TracingSettings(enabled=enabled), kafka) as tracer:
        return tracer
"""
OFF = f"""{OPEN}
assert asyncio.run(main(False)) is None
print(*(name for name in sys.modules if name.split(".")[0] in ("opentelemetry", "grpc", "requests")))
"""
MISSING = f"""{OPEN}
sys.modules[{{!r}}] = None
try:
    asyncio.run(main(True))
except v2td.errors.ConfigError as error:
    print(error)
"""


def output(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60).stdout


def test_nothing_is_imported() -> None:
    assert output(OFF).strip() == ""


@pytest.mark.parametrize("package", ["opentelemetry", "grpc"])
def test_a_missing_extra_is_named(package: str) -> None:
    assert "pip install 'v2td[tracing]'" in output(MISSING.format(package))


def test_a_trail_has_no_trace() -> None:
    trail = Board().open(Job(Coordinates("cluster", "jobs", 0, 1, 0), "http://host/a.wav"))
    trail.begin(1)
    assert (trail.trace, trail.timings, exemplar_of(trail)) == (None, {"attempts": 1}, None)
