"""What `v2td top` sees of a daemon by its admin address: slots, stages, queue, loop."""

from __future__ import annotations

import json
import math
import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from v2td.config import AdminSettings
from v2td.errors import ServiceError
from v2td.ops.top_seen import Buckets, DaemonSeen, Labels, SlotSeen

MAX_BYTES = 8_000_000  # of an answer; /metrics of a daemon with many partitions has some 100 kB
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 (how a daemon that listens everywhere is asked)
WANTED = "v2td_"


def usual_address(settings: AdminSettings) -> str | None:
    """Return where the daemon of this configuration is asked; None when it serves nothing, or on a port of chance."""
    if not settings.enabled:
        return None
    if settings.socket is not None:
        return f"unix:{settings.socket}"
    if settings.port == 0:
        return None
    scheme = "http" if settings.tls_cert_file is None else "https"
    host = ANYWHERE.get(settings.host, f"[{settings.host}]" if ":" in settings.host else settings.host)
    return f"{scheme}://{host}:{settings.port}"


class AdminSource:
    """Looks at one daemon; an async context manager. `address` is an http(s) URL, or unix:/path of its socket."""

    def __init__(self, address: str, settings: AdminSettings) -> None:
        self.address = address
        self._settings = settings
        self._open = AsyncExitStack()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def look(self) -> DaemonSeen:
        """Return what the daemon says; ServiceError when it does not."""
        try:
            status = json.loads(await self.get("/status"))
            samples, histograms = measured(await self.get("/metrics"))
            return _seen(status, samples, histograms)
        except ssl.SSLError as error:
            hint = "name the address in its certificate"
            raise ServiceError("ask the daemon", f"TLS failed: {error}", hint) from error
        except (aiohttp.ClientError, OSError) as error:
            told = str(error) or type(error).__name__
            raise ServiceError("ask the daemon", told, "is it running, and is this its address?") from error
        except (KeyError, TypeError, ValueError) as error:
            raise ServiceError("ask the daemon", "what answers there is no v2td", "correct the address") from error

    async def get(self, path: str) -> str:
        """Return what the daemon answers to GET; ServiceError unless it is 200, errors of aiohttp, OSError."""
        session = self._session or await self._opened()
        base = "http://localhost" if self.address.startswith("unix:") else self.address.rstrip("/")
        async with session.get(base + path, allow_redirects=False) as answer:
            if answer.status == 401:
                raise ServiceError("ask the daemon", "it wants the token", "set admin.token to the daemon's")
            if answer.status != 200:
                raise ServiceError("ask the daemon", f"GET {path} was answered with {answer.status}")
            body = await answer.content.read(MAX_BYTES + 1)
            while len(body) <= MAX_BYTES and (more := await answer.content.read(MAX_BYTES)):
                body += more
            if len(body) > MAX_BYTES:
                raise ServiceError("ask the daemon", f"GET {path} has more than {MAX_BYTES} bytes")
            return body.decode(errors="replace")

    async def _opened(self) -> aiohttp.ClientSession:
        token = self._settings.token
        headers = {} if token is None else {"Authorization": f"Bearer {token.get_secret_value()}"}
        connector = _connector(self.address, self._settings.tls_cert_file)
        session = aiohttp.ClientSession(connector=connector, headers=headers)
        self._session = await self._open.enter_async_context(session)
        return self._session


def _connector(address: str, certificate: Path | None) -> aiohttp.BaseConnector:
    if address.startswith("unix:"):
        return aiohttp.UnixConnector(address.removeprefix("unix:"))
    context = ssl.create_default_context()
    if certificate is not None:
        context.load_verify_locations(certificate)  # the daemon's own, which may be nobody's but ours
    return aiohttp.TCPConnector(ssl=context)


def measured(text: str) -> tuple[dict[tuple[str, Labels], float], dict[tuple[str, Labels], Buckets]]:
    """Return v2td's samples and histograms in Prometheus' text format, by name and labels; else ValueError."""
    samples: dict[tuple[str, Labels], float] = {}
    buckets: dict[tuple[str, Labels], list[tuple[float, float]]] = {}
    for family in text_string_to_metric_families(text):
        if not family.name.startswith(WANTED):
            continue
        for sample in family.samples:
            labels = dict(sample.labels)
            if family.type == "histogram" and "le" in labels:
                bound = float(labels.pop("le"))
                buckets.setdefault((family.name, _labels(labels)), []).append((bound, sample.value))
            elif math.isfinite(sample.value):
                samples[sample.name, _labels(labels)] = sample.value
    return samples, {key: Buckets(tuple(sorted(counts))) for key, counts in buckets.items()}


def _labels(labels: dict[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


def _seen(
    status: dict[str, Any],
    samples: dict[tuple[str, Labels], float],
    histograms: dict[tuple[str, Labels], Buckets],
) -> DaemonSeen:
    slots: Sequence[dict[str, Any]] = status["slots"]
    because = status["not_ready_because"]
    return DaemonSeen(
        pid=int(status["pid"]),
        version=str(status["version"]),
        not_ready_because=None if because is None else str(because),
        in_flight=int(status["in_flight"]),
        queued_windows=int(status["queued_windows"]),
        slots=tuple(
            SlotSeen(int(each["slot"]), str(each["state"]), int(each["windows"]), int(each["restarts"]))
            for each in slots
        ),
        samples=samples,
        histograms=histograms,
    )
