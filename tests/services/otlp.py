"""The OpenTelemetry collector's own receiver of OTLP, which writes down what it is sent."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.services.processes import Fragile, Process, free_ports, spawn, tcp_answers, until_answers

SOURCE = Path(__file__).with_name("otlp_receiver") / "main.go"
VERSION = "v0.150.0"
SHA256 = hashlib.sha256(SOURCE.read_bytes()).hexdigest()
PROGRAM = "otlp-receiver"

_COLLECTOR = "go.opentelemetry.io/collector"  # its modules have versions of two kinds, released together
_MODULES = (f"{_COLLECTOR}/receiver/otlpreceiver@{VERSION}", f"{_COLLECTOR}/component/componenttest@{VERSION}")

_START_SECONDS = 20.0


def build(folder: Path) -> None:
    """Compiles ``folder``/otlp-receiver; a minute.  Raises subprocess.CalledProcessError when Go fails.

    The two modules say the versions of all others; Go compares all with its public database of checksums.
    """
    sources = folder / "sources"
    sources.mkdir()
    shutil.copy(SOURCE, sources)
    for command in (["mod", "init", "v2td/otlp-receiver"], ["get", *_MODULES], ["build", "-o", str(folder / PROGRAM)]):
        subprocess.run(
            ["go", *command], check=True, stdin=subprocess.DEVNULL, cwd=sources, env={**os.environ, "GOWORK": "off"}
        )
    shutil.rmtree(sources)


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it came: ids in hex, times in nanoseconds since the epoch, ``links`` are trace and span ids."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    start: int
    end: int
    attributes: dict[str, Any]
    links: tuple[tuple[str, str, str], ...]
    status: dict[str, Any]
    state: str
    resource: dict[str, Any]


@dataclass(slots=True)
class Receiver(Fragile):
    """A receiver on two ports of loopback; it can be killed, frozen and started again."""

    program: Path
    folder: Path
    ports: tuple[int, int]
    pem: Path | None = None
    process: Process | None = None

    @property
    def grpc(self) -> str:
        """The endpoint of OTLP over gRPC."""
        return f"{self._scheme}://127.0.0.1:{self.ports[0]}"

    @property
    def http(self) -> str:
        """The endpoint of OTLP over HTTP."""
        return f"{self._scheme}://127.0.0.1:{self.ports[1]}"

    async def start(self) -> None:
        """Starts it and waits until both ports answer.  Raises ServiceError."""
        log = self.folder / f"{PROGRAM}.log"
        addresses = [f"127.0.0.1:{port}" for port in self.ports]
        command: list[str | Path] = [self.program, *addresses, self._file, *([self.pem] if self.pem else [])]
        self.process = spawn(PROGRAM, command, log=log, cwd=self.folder)
        await until_answers(self.process, self._answers, log=log, timeout_seconds=_START_SECONDS)

    async def _answers(self) -> None:
        for port in self.ports:
            await tcp_answers(port)

    @property
    def requests(self) -> list[dict[str, Any]]:
        """What came: ``authorization`` and OTLP's ``request``."""
        lines = self._file.read_text(encoding="utf-8").splitlines(keepends=True) if self._file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    @property
    def spans(self) -> list[Span]:
        """All spans that came."""
        return [
            _span(span, resource)
            for each in self.requests
            for resource in each["request"]["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]

    @property
    def _scheme(self) -> str:
        return "https" if self.pem else "http"

    @property
    def _file(self) -> Path:
        return self.folder / "spans.jsonl"


@asynccontextmanager
async def running(build: Path, folder: Path, pem: Path | None = None) -> AsyncIterator[Receiver]:
    """A receiver of that build, over TLS with a certificate, which is gone at the end.  Raises ServiceError."""
    first, second = free_ports(2)
    receiver = Receiver(build / PROGRAM, folder, (first, second), pem)
    try:
        await receiver.start()
        yield receiver
    finally:
        await asyncio.to_thread(receiver.kill)


def _span(span: dict[str, Any], resource: dict[str, Any]) -> Span:
    return Span(
        name=span["name"],
        trace_id=span["traceId"],
        span_id=span["spanId"],
        parent_id=span.get("parentSpanId", ""),
        kind=span.get("kind", 0),
        start=int(span["startTimeUnixNano"]),
        end=int(span["endTimeUnixNano"]),
        attributes=_attributes(span),
        links=tuple(
            (each["traceId"], each["spanId"], str(_attributes(each)["v2td.link"])) for each in span.get("links", ())
        ),
        status=span.get("status", {}),
        state=span.get("traceState", ""),
        resource=_attributes(resource["resource"]),
    )


def _attributes(of: dict[str, Any]) -> dict[str, Any]:
    return {each["key"]: _value(each["value"]) for each in of.get("attributes", ())}


def _value(value: dict[str, Any]) -> Any:
    (kind, content), *_ = value.items()
    if kind == "intValue":
        return int(content)
    return [_value(each) for each in content.get("values", ())] if kind == "arrayValue" else content
