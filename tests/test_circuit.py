"""What the circuit breaker counts as a sign of trouble of ours."""

import time

from tests.store.outcomes import coordinates, failure, transcript
from v2td.circuit import Circuit
from v2td.config import PipelineSettings
from v2td.errors import ErrorClass
from v2td.jobs import Redo, Replay

GONE = {"error_class": ErrorClass.NOT_FOUND}


async def test_old_recordings_that_are_gone_do_not_stop_live_traffic() -> None:
    """Somebody has a thousand old jobs done again; live jobs that fail in the same way still count."""
    circuit = Circuit(PipelineSettings(breaker_jobs=5, breaker_ratio=0.5))
    began = await circuit.admit()
    for offset in range(1000):
        circuit.judge(failure(offset, replay=Replay(coordinates(offset + 5000)), redo=Redo(1), **GONE), began)
    circuit.judge(transcript(1), began)
    assert not circuit.is_open
    for offset in range(5):
        circuit.judge(failure(offset, **GONE), time.monotonic())
    assert circuit.is_open


async def test_what_people_cancel_is_neither_a_failure_nor_a_success() -> None:
    circuit = Circuit(PipelineSettings(breaker_jobs=5, breaker_ratio=0.5))
    for offset in range(4):
        circuit.judge(failure(offset, **GONE), await circuit.admit())
    for offset in range(1000):
        circuit.judge(failure(offset, error_class=ErrorClass.CANCELLED), await circuit.admit())
    assert not circuit.is_open
    circuit.judge(failure(5, **GONE), time.monotonic())
    assert circuit.is_open, "five of five that say something"
