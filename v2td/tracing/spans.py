"""What became of a job, as OpenTelemetry's spans. Pure, but for the random ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from v2td import __version__
from v2td.jobs import Coordinates
from v2td.stages import Step, Trace
from v2td.tracing.contexts import NAME
from v2td.tracing.windows import HeardWindow

TRANSCRIBE = "transcribe"
COMMIT = "commit"
WINDOW = "window"
MAX_TEXT = 1000  # characters of one attribute; what a message says may be long

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCOPE = InstrumentationScope("v2td", __version__)
_IDS = RandomIdGenerator()

Attributes = dict[str, str | int | float | tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Ended:
    """All that the spans of a job say; `began_at` is a time.time(), `seconds` its duration.

    `record` is where the record that asked for it is. `size` is in bytes,
    None where no recording came. `reason` says why it failed; `links` are spans, as `Trace.told`, by what they are.
    """

    trace: Trace
    record: Coordinates
    began_at: float
    seconds: float
    steps: tuple[Step, ...]
    file: str
    size: int | None
    windows: Sequence[HeardWindow]
    attributes: Mapping[str, str | int | float | None]
    error_class: str | None
    reason: str | None
    links: tuple[tuple[str, str], ...]

    @property
    def count(self) -> int:
        """How many spans it has."""
        return 1 + len(self.steps) + len(self.windows)


@dataclass(frozen=True, slots=True)
class Committed:
    """When the wait for the commit of a job's offset began and ended; times are time.time()."""

    trace: Trace
    began_at: float
    ended_at: float
    count: int = 1


class Spans:
    """Makes spans of one service, for one consumer group."""

    def __init__(self, resource: Resource, group: str) -> None:
        self._resource = resource
        self._group = group

    def of(self, told: Ended | Committed) -> Iterator[ReadableSpan]:
        """Yield the spans: a job's own, then its stages', each followed by its windows'."""
        trace_state = TraceState.from_header([told.trace.state]) if told.trace.state else TraceState()
        own = _context(told.trace.trace_id, int(told.trace.span_id, 16), trace_state)
        if isinstance(told, Committed):
            yield self._child(own, COMMIT, _nanoseconds(told.began_at), _nanoseconds(told.ended_at), {})
            return
        yield self._job(own, told)
        heard_in = next((step for step in reversed(told.steps) if step.stage == TRANSCRIBE), None)
        for step in told.steps:
            attributes: Attributes = {"v2td.attempt": step.attempt}
            if step.stage == TRANSCRIBE:
                attributes["file"] = _text(told.file)
                if told.size is not None:
                    attributes["size"] = told.size
            start, end = _times(told, step.start, step.seconds)
            span = self._child(own, step.stage, start, end, attributes)
            yield span
            if step is heard_in:
                yield from self._windows(span, told)

    def _job(self, own: SpanContext, told: Ended) -> ReadableSpan:
        attributes: Attributes = {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": told.record.topic,
            "messaging.destination.partition.id": str(told.record.partition),
            "messaging.kafka.offset": told.record.offset,
            "messaging.consumer.group.name": self._group,
        }
        for name, value in told.attributes.items():
            if value is not None:
                attributes[name] = _text(value) if isinstance(value, str) else value
        status = Status(StatusCode.UNSET)
        if told.error_class is not None:
            attributes["error.type"] = told.error_class
            status = Status(StatusCode.ERROR, _text(f"{told.error_class}: {told.reason}"))
        parent_id = told.trace.parent_id
        producer = (
            _context(told.trace.trace_id, int(parent_id, 16), own.trace_state, remote=True) if parent_id else None
        )
        start, end = _times(told, 0, told.seconds)
        return ReadableSpan(
            name=NAME,
            context=own,
            parent=producer,
            resource=self._resource,
            attributes=attributes,
            links=[_link(kind, where) for kind, where in told.links],
            kind=SpanKind.CONSUMER,
            status=status,
            start_time=start,
            end_time=end,
            instrumentation_scope=_SCOPE,
        )

    def _windows(self, heard_in: ReadableSpan, told: Ended) -> Iterator[ReadableSpan]:
        for window in told.windows:
            start, end = _times(told, window.start, window.seconds)
            attributes: Attributes = {"v2td.window.flags": tuple(map(_text, window.flags))}
            attributes |= {f"v2td.window.{name}": number for name, number in window.numbers}
            yield self._child(heard_in.context, WINDOW, start, end, attributes)

    def _child(
        self, parent: SpanContext | None, name: str, start: int, end: int, attributes: Attributes
    ) -> ReadableSpan:
        assert parent is not None
        return ReadableSpan(
            name=name,
            context=SpanContext(parent.trace_id, _IDS.generate_span_id(), False, _SAMPLED, parent.trace_state),
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            start_time=start,
            end_time=end,
            instrumentation_scope=_SCOPE,
        )


def _context(trace_id: str, span_id: int, state: TraceState, *, remote: bool = False) -> SpanContext:
    return SpanContext(int(trace_id, 16), span_id, remote, _SAMPLED, state)


def _link(kind: str, told: str) -> Link:
    trace_id, _, span_id = told.partition("-")
    return Link(SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True), {"v2td.link": kind})


def _times(told: Ended, start: float, seconds: float) -> tuple[int, int]:
    began = _nanoseconds(told.began_at)  # one rounding for all: children stay inside
    return began + _nanoseconds(start), began + _nanoseconds(start + seconds)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _text(value: str) -> str:
    """Return a text that protobuf takes, and a collector: clean UTF-8 that is not too long."""
    return value[:MAX_TEXT].encode(errors="replace").decode()
