"""Errors of the transcription API in OpenAI's shape, so that its clients understand them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from aiohttp import web

from v2td.errors import ErrorClass, JobError, NoRoomError, TransientJobError

Result = Literal["failed", "refused", "busy"]

RETRY_SECONDS = 5  # where nobody knows better
# What the recording or the request is to blame for is 400.
STATUSES: Mapping[ErrorClass, int] = MappingProxyType(
    {
        ErrorClass.TOO_LARGE: 413,
        ErrorClass.TIMEOUT: 504,
        ErrorClass.EXPIRED: 504,
        ErrorClass.DECODER_CRASH: 422,  # a process of ours died of this recording: it is not to be sent again
        ErrorClass.INFERENCE_CRASH: 422,
        ErrorClass.POISON: 500,
        ErrorClass.PROVIDER_ERROR: 502,
    }
)
NOT_AGAIN = frozenset({ErrorClass.TIMEOUT, ErrorClass.EXPIRED, ErrorClass.POISON})


class RefusedError(Exception):
    """Why a request has no transcript. `param` is the field to blame, `code` is for programs, `result` for the metric.

    `told` is the answer that was begun already, and that says so.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        result: Result = "refused",
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.headers = headers
        self.result = result
        self.told: web.StreamResponse | None = None
        self.error = {"message": message, "type": _type(status), "param": param, "code": code}

    def answer(self) -> web.StreamResponse:
        """Return the answer that says so."""
        if self.told is not None:
            return self.told
        content = json.dumps({"error": self.error}).encode() + b"\n"
        return web.Response(status=self.status, body=content, content_type="application/json", headers=self.headers)


def refusal(status: int, detail: str, headers: Mapping[str, str] | None = None) -> web.StreamResponse:
    """Return an answer that says what is wrong, as OpenAI says it."""
    return RefusedError(status, detail, headers=headers or {}).answer()


def busy(message: str) -> RefusedError:
    """Too much at once: it may come again."""
    return RefusedError(429, message, code="rate_limit_exceeded", result="busy", headers={"Retry-After": "1"})


def unavailable(message: str, result: Result = "refused") -> RefusedError:
    """No fault of the request's: it may come again."""
    return RefusedError(503, message, code="unavailable", result=result, headers={"Retry-After": str(RETRY_SECONDS)})


def of_job(error: JobError) -> RefusedError:
    """Return what a job's error is to whoever sent it."""
    code = str(error.error_class)
    if isinstance(error, TransientJobError) and error.error_class is ErrorClass.PROVIDER_ERROR:
        seconds = RETRY_SECONDS if error.retry_after is None else error.retry_after
        headers = {"Retry-After": str(max(1, math.ceil(seconds)))}
        return RefusedError(503, error.reason, code=code, result="failed", headers=headers)
    # OpenAI's client asks again after any 5xx unless it is told not to.
    headers = {"x-should-retry": "false"} if error.error_class in NOT_AGAIN else {}
    status = STATUSES.get(error.error_class, 400)
    return RefusedError(status, error.reason, code=code, result="failed", headers=headers)


def of_service(error: Exception) -> RefusedError:
    """Return what a fault of ours is to others: not what it was, which is in the log."""
    if isinstance(error, NoRoomError):
        return unavailable("no room for it now", "failed")
    return unavailable("it cannot be done now: see the daemon's log", "failed")


def _type(status: int) -> str:
    match status:
        case 401 | 403:
            return "authentication_error"
        case 429:
            return "requests"
    return "server_error" if status >= 500 else "invalid_request_error"
