"""Watches jobs: gives each its trace when it begins, and what its spans are made of when it has ended."""

from __future__ import annotations

import os
import socket
import time
from typing import Self

import structlog
from opentelemetry.sdk.resources import Resource

from v2td import __version__
from v2td.board import Finished
from v2td.config import KafkaSettings, TracingSettings
from v2td.jobs import Failure, Outcome, Transcript
from v2td.messages import without_secrets
from v2td.stages import Trail
from v2td.tracing.contexts import Contexts, is_told
from v2td.tracing.exporters import exporter_of
from v2td.tracing.sender import Sender
from v2td.tracing.spans import Committed, Ended, Spans
from v2td.tracing.windows import windows_of


class Tracer:
    """A watcher of the board; an async context manager, which sends what waits at its end."""

    def __init__(self, settings: TracingSettings, kafka: KafkaSettings) -> None:
        resource = Resource.create(
            {
                "service.name": settings.service_name,
                "service.version": __version__,
                "service.instance.id": kafka.group_instance_id
                or f"{kafka.client_id}@{socket.gethostname()}:{os.getpid()}",  # as in the table `instances`
            }
        )
        self._windows = settings.windows
        self._contexts = Contexts(settings.sample_ratio)
        self._sender = Sender(Spans(resource, kafka.group_id), exporter_of(settings), settings.endpoint)

    async def __aenter__(self) -> Self:
        await self._sender.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._sender.__aexit__(*error)

    def opened(self, trail: Trail) -> None:
        """Give a job its trace."""
        trail.trace = self._contexts.of(trail.job)
        if trail.trace.sampled:  # we are in the job's own task: its log lines say it from now on
            structlog.contextvars.bind_contextvars(trace_id=trail.trace.trace_id)

    def closed(self, trail: Trail, outcome: Outcome | None) -> None:
        """Hand over what the job's spans say; its record is not kept."""
        if trail.trace is not None and trail.trace.sampled:
            self._sender.give(_ended(trail, outcome, windows=self._windows))

    def committed(self, finished: Finished) -> None:
        """Hand over when Kafka had its offset."""
        trail = finished.trail
        if trail.trace is None or not trail.trace.sampled or finished.committed is None:
            return
        began = trail.began_at - trail.began
        self._sender.give(Committed(trail.trace, began + finished.ended, began + finished.committed))


def _ended(trail: Trail, outcome: Outcome | None, *, windows: bool) -> Ended:
    job, trace = trail.job, trail.trace
    assert trace is not None
    heard = outcome if isinstance(outcome, Transcript) else None
    failed = outcome if isinstance(outcome, Failure) else None
    timings = heard.timings if heard else {}
    links = [("retry", trace.earlier), ("cached", timings.get("cached_trace"))]
    return Ended(
        trace=trace,
        record=job.replay.record if job.replay else job.coordinates,
        began_at=trail.began_at,
        seconds=time.monotonic() - trail.began,
        steps=tuple(trail.steps),
        file=without_secrets(job.audio_url),
        size=heard.audio_bytes if heard else None,
        windows=windows_of(timings) if windows else (),
        attributes={
            "v2td.job": str(job.id),
            "v2td.job_id": job.job_id,
            "v2td.tenant": job.tenant,
            "v2td.priority": job.priority,
            "v2td.attempts": trail.attempt,
            "v2td.revision": job.redo.revision if job.redo else None,
            "v2td.outcome": _outcome(outcome),
            "v2td.waited_seconds": round(max(0.0, trail.began_at - job.coordinates.timestamp_ms / 1000), 3),
            "v2td.provider": heard.provider if heard else None,
            "v2td.model": heard.model if heard else None,
            "v2td.language": heard.language if heard else None,
            "v2td.audio_seconds": heard.audio_seconds if heard else None,
            "v2td.cached": timings.get("cached"),
        },
        error_class=failed.error_class.value if failed else None,
        reason=failed.reason if failed else None,
        links=tuple((kind, each) for kind, each in links if isinstance(each, str) and is_told(each)),
    )


def _outcome(outcome: Outcome | None) -> str:
    if outcome is None:
        return "unfinished"
    if isinstance(outcome, Failure):
        return "retried_later" if outcome.retried_later else "failed"
    return "transcribed"
