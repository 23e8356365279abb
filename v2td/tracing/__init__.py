"""Jobs as traces: OpenTelemetry's spans of each job, its stages and its windows, sent by OTLP.

In: the trails of jobs, as the board's watcher. Out: spans, made when a job has ended, by a thread of their own that
sends them. Nothing here waits: what the collector does not take in time is lost, and counted. The rest of the package
needs the extra `tracing`, and is imported only where tracing is enabled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from v2td.config import KafkaSettings, TracingSettings
from v2td.errors import ConfigError

if TYPE_CHECKING:
    from v2td.tracing.tracer import Tracer

__all__ = ["check", "opened"]

_PACKAGES = ("opentelemetry", "google", "grpc", "requests")


@asynccontextmanager
async def opened(settings: TracingSettings, kafka: KafkaSettings) -> AsyncIterator[Tracer | None]:
    """Yield what watches the jobs of a consumer group; None where nobody traces.

    At the end what waits is sent, for 2 s at most. ConfigError where the extra is missing.
    """
    if not settings.enabled:
        yield None
        return
    with _from_the_extra():
        from v2td.tracing.tracer import Tracer  # noqa: PLC0415 (an extra of the package)

        tracer = Tracer(settings, kafka)
    async with tracer:
        yield tracer


async def check(settings: TracingSettings) -> str:
    """Say where the spans go, once the collector has taken a request; ConfigError as above, ServiceError."""
    with _from_the_extra():
        from v2td.tracing.exporters import reach  # noqa: PLC0415 (the same)

        await asyncio.to_thread(reach, settings)
    return f"a collector takes spans at {settings.endpoint} over {settings.protocol}"


@contextmanager
def _from_the_extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _PACKAGES:
            raise
        raise ConfigError("tracing.enabled", "true", "install what it takes: pip install 'v2td[tracing]'") from error
