"""Whose trace a job belongs to: the producer's, by the record's headers, or one of its own."""

from __future__ import annotations

import re

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from v2td.jobs import Headers, Job
from v2td.messages.headers import TRACE, header
from v2td.stages import Trace

NAME = "job"
MAX_HEADER_BYTES = 512  # what W3C asks receivers to take at least, and the propagator takes at most
_TOLD = re.compile(r"(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}")


class _Record(Getter[Headers]):
    """Reads the headers of a Kafka record; they may hold anything."""

    def get(self, carrier: Headers, key: str) -> list[str] | None:
        """Return all values of a header that are short and ASCII."""
        values = [value for name, value in carrier if name == key]
        return [each.decode() for each in values if len(each) <= MAX_HEADER_BYTES and each.isascii()] or None

    def keys(self, carrier: Headers) -> list[str]:
        """Return the names."""
        return [name for name, _ in carrier]


_RECORD = _Record()


class Contexts:
    """Joins jobs to traces, and decides which are kept: the producer's flag does, or `sample_ratio` for all others."""

    def __init__(self, sample_ratio: float) -> None:
        self._sampler = ParentBased(TraceIdRatioBased(sample_ratio))
        self._ids = RandomIdGenerator()
        self._propagator = TraceContextTextMapPropagator()
        self._nobody = Context()

    def of(self, job: Job) -> Trace:
        """Return the trace of a job that begins; raises nothing, whatever its record's headers say."""
        headers = job.record.headers
        span_id = f"{self._ids.generate_span_id():016x}"
        context = self._propagator.extract(headers, self._nobody, _RECORD) if headers else self._nobody
        parent = get_current_span(context).get_span_context()
        trace_id = parent.trace_id if parent.is_valid else self._ids.generate_trace_id()
        decision = self._sampler.should_sample(context, trace_id, NAME, SpanKind.CONSUMER).decision
        sampled = decision is Decision.RECORD_AND_SAMPLE
        return Trace(
            trace_id=f"{trace_id:032x}",
            span_id=span_id,
            sampled=sampled,
            parent_id=f"{parent.span_id:016x}" if parent.is_valid else None,
            state=parent.trace_state.to_header() or None if parent.is_valid else None,
            earlier=_earlier(job) if sampled else None,
        )


def _earlier(job: Job) -> str | None:
    """Return the span of the try before, which a record names that asks for a job once more."""
    if job.replay is None:  # else anybody may have said so
        return None
    told = header(job.record.headers, TRACE)
    return told if is_told(told) else None


def is_told(value: object) -> bool:
    """Tell whether a value is one of `Trace.told`: it may come from anywhere."""
    return isinstance(value, str) and _TOLD.fullmatch(value) is not None
