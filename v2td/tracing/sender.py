"""The thread that makes spans and sends them, so that no job waits for a collector."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from typing import Self

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from v2td import metrics
from v2td.logs import get_logger
from v2td.tracing.exporters import Answers
from v2td.tracing.spans import Committed, Ended, Spans

log = get_logger(__name__)

MAX_WAITING = 4096  # jobs; a few kilobytes each
MAX_REQUEST = 512  # spans, as OpenTelemetry's own processor has it
LINGER_SECONDS = 0.5  # after the first, so that several go together
DRAIN_SECONDS = 2.0
SAY_SECONDS = 60.0

_SENT = metrics.SPANS.labels("sent")
_LOST = metrics.SPANS.labels("lost")


class Sender:
    """Sends what it is given, in order; an async context manager. What it cannot send is lost, counted and logged.

    OpenTelemetry's own processor counts nothing, may wait half a minute at the end, and has its spans made by whoever
    ends them.
    """

    def __init__(self, spans: Spans, exporter: SpanExporter, endpoint: str) -> None:
        self._spans = spans
        self._exporter = exporter
        self._endpoint = endpoint
        self._waiting: deque[Ended | Committed] = deque()
        self._in_hand = 0
        self._some = threading.Event()
        self._closing = threading.Event()
        self._given_up = False
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)  # who hangs keeps nobody
        self._refused = self._failed = self._told = 0  # spans: for want of room, by the collector, as said in the log
        self._said = float("-inf")  # time.monotonic()
        self._answers = Answers()

    async def __aenter__(self) -> Self:
        self._answers.listen()
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Send what waits, for DRAIN_SECONDS at most."""
        self._closing.set()
        self._some.set()
        await asyncio.to_thread(self._thread.join, DRAIN_SECONDS)
        if self._thread.is_alive():
            self._given_up = True
            self._answers.setLevel(logging.CRITICAL + 1)  # that we end it is no answer
            await asyncio.to_thread(self._exporter.shutdown)  # ends its pauses between tries
            await asyncio.to_thread(self._thread.join, DRAIN_SECONDS / 4)
            left = self._in_hand + sum(each.count for each in self._waiting)
            self._failed += left
            _LOST.inc(left)
        self._say(now=True)

    def give(self, told: Ended | Committed) -> None:
        """Take what is to be sent; never waits."""
        if len(self._waiting) >= MAX_WAITING:
            self._refused += told.count
            _LOST.inc(told.count)
            return
        self._waiting.append(told)
        if not self._some.is_set():
            self._some.set()

    def _run(self) -> None:
        while not self._given_up:
            self._some.wait()
            self._closing.wait(LINGER_SECONDS)
            self._some.clear()
            while self._waiting and not self._given_up:
                self._send(self._batch())
                self._say()
            if self._closing.is_set():
                return

    def _batch(self) -> list[ReadableSpan]:
        spans: list[ReadableSpan] = []
        while self._waiting and len(spans) < MAX_REQUEST:
            told = self._waiting.popleft()
            try:
                spans += self._spans.of(told)
            except Exception:  # a bug of ours that this job found: the others' traces go on
                log.exception("no spans", job_trace=told.trace.told)
                self._failed += told.count
                _LOST.inc(told.count)
        return spans

    def _send(self, spans: list[ReadableSpan]) -> None:
        for start in range(0, len(spans), MAX_REQUEST):  # a long recording's alone may be more
            request = spans[start : start + MAX_REQUEST]
            self._in_hand = len(spans) - start
            taken = self._taken(request)
            if self._given_up:  # who gave up has counted them
                return
            if taken:
                _SENT.inc(len(request))
            else:
                self._failed += len(request)
                _LOST.inc(len(request))
        self._in_hand = 0

    def _taken(self, request: list[ReadableSpan]) -> bool:
        try:
            return self._exporter.export(request) is SpanExportResult.SUCCESS
        except Exception:  # the thread is to live on, whatever a library raises
            if not self._given_up:  # else it was closed under way
                log.exception("spans not sent")
            return False

    def _say(self, *, now: bool = False) -> None:
        """Log what was lost, once in SAY_SECONDS."""
        lost = self._refused + self._failed - self._told
        if lost and (now or time.monotonic() - self._said >= SAY_SECONDS):
            self._said = time.monotonic()
            self._told += lost
            why = self._answers.last if self._failed else "more than can be sent"
            log.warning("spans lost", spans=lost, endpoint=self._endpoint, why=why, cure="see tracing.endpoint")
