"""What a server may send around a body, counted as the bytes come in.

aiohttp takes any number of interim (1xx) answers, queues each, and reads them without a pause, so that no timeout of
the loop can fire meanwhile; chunk extensions and trailers reach nobody who could count them. Both end here.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.streams import StreamReader

from v2td.errors import ErrorClass, JobError

MAX_INTERIM_ANSWERS = 16
MIN_HEAD_BYTES = 64 * 1024  # a bound below this would refuse servers that are merely talkative
HEAD_SLICE_BYTES = 4096  # parsed at once until the final head is known: 256 of the shortest interim answers
FREE_OVERHEAD_BYTES = 1024 * 1024

_SWITCHING_PROTOCOLS = 101  # final for aiohttp, and refused like any other status but 200


class BoundedHandler(ResponseHandler):
    """aiohttp's side of one connection, which it ends with a JobError once an answer costs too much.

    Bounds, for each request: `max_head_bytes` and MAX_INTERIM_ANSWERS before the final head, one final answer, and
    behind it no more overhead than FREE_OVERHEAD_BYTES and the body's own size (chunks of a few bytes stay below).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, max_head_bytes: int) -> None:
        super().__init__(loop)
        self._max_head_bytes = max_head_bytes
        self._begin()

    def _begin(self) -> None:
        self._raw_bytes = 0
        self._interim_answers = 0
        self._final_answers = 0
        self._body: StreamReader | None = None
        self._refused = False

    def set_response_params(self, **params: Any) -> None:
        """Begin to count anew: a request is about to be sent."""
        self._begin()
        super().set_response_params(**params)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Take an answer's head from the parser; those beyond the bounds are not queued."""
        message, body = data
        if 100 <= message.code <= 199 and message.code != _SWITCHING_PROTOCOLS:
            self._interim_answers += 1
            queued = self._interim_answers <= MAX_INTERIM_ANSWERS
        else:
            self._final_answers += 1
            queued = self._final_answers == 1
            self._body = body if queued else self._body
        if queued:
            super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        """Parse what came in, until the final head in slices, and end the connection as soon as it is too much.

        Empty data is aiohttp's own word for "go on parsing".
        """
        while not self._refused and self._body is None and len(data) > HEAD_SLICE_BYTES:
            self._parse(data[:HEAD_SLICE_BYTES])
            data = data[HEAD_SLICE_BYTES:]
        if not self._refused:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        self._raw_bytes += len(data)
        error = self._abuse()
        if error is not None:
            self._refuse(error)
        elif self.exception() is not None:
            # aiohttp's parser gave up and tells only who waits for a head: who reads the body would wait for ever.
            self._end_body(aiohttp.ClientPayloadError("not valid HTTP"))

    def _abuse(self) -> JobError | None:
        if self._interim_answers > MAX_INTERIM_ANSWERS:
            return JobError(ErrorClass.HTTP_ERROR, f"the server sent more than {MAX_INTERIM_ANSWERS} interim answers")
        if self._final_answers > 1:
            return JobError(ErrorClass.HTTP_ERROR, "the server sent more than one answer")
        if self._body is None:
            if self._raw_bytes > self._max_head_bytes:
                return JobError(
                    ErrorClass.HTTP_ERROR, f"the server sent more than {self._max_head_bytes} bytes of headers"
                )
        elif self._raw_bytes > FREE_OVERHEAD_BYTES + 2 * self._body.total_bytes:
            return JobError(
                ErrorClass.TOO_LARGE, "the server sent more chunk extensions, trailers and the like than body"
            )
        return None

    def _refuse(self, error: JobError) -> None:
        self._refused = True
        self.abort()
        self.set_exception(error)
        self._end_body(error)

    def _end_body(self, error: Exception) -> None:
        if self._body is not None and not self._body.is_eof() and self._body.exception() is None:
            self._body.set_exception(error)


class BoundedConnector(aiohttp.TCPConnector):
    """A connector whose connections are BoundedHandlers; `max_head_bytes` is at least MIN_HEAD_BYTES."""

    def __init__(self, *, max_head_bytes: int, **options: Any) -> None:
        super().__init__(**options)
        # aiohttp has no other way to choose the protocol; tests/fetch/test_protocol.py tells when it changes.
        self._factory = functools.partial(  # type: ignore[assignment]  # partial is invariant
            BoundedHandler, loop=self._loop, max_head_bytes=max(max_head_bytes, MIN_HEAD_BYTES)
        )
