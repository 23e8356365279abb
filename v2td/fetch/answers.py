"""What an HTTP answer means for the job. Pure: the wall clock comes in as `now`."""

from __future__ import annotations

import re
from datetime import datetime

from v2td.errors import ErrorClass, JobError, TransientJobError
from v2td.retry import retry_after_seconds

REDIRECTS = frozenset({301, 302, 303, 307, 308})
BODY_BYTES = 4096  # of an error's body that are read for the object store's code

_TRANSIENT = frozenset({408, 425, 429})
_BY_STATUS = {
    401: ErrorClass.ACCESS_DENIED,
    403: ErrorClass.ACCESS_DENIED,
    404: ErrorClass.NOT_FOUND,
    410: ErrorClass.NOT_FOUND,
}
_BY_CODE = {
    "NoSuchKey": ErrorClass.NOT_FOUND,
    "NoSuchBucket": ErrorClass.NOT_FOUND,
    "NoSuchVersion": ErrorClass.NOT_FOUND,
    "AccessDenied": ErrorClass.ACCESS_DENIED,
    "AllAccessDisabled": ErrorClass.ACCESS_DENIED,
    "ExpiredToken": ErrorClass.ACCESS_DENIED,
    "InvalidAccessKeyId": ErrorClass.ACCESS_DENIED,
    "InvalidToken": ErrorClass.ACCESS_DENIED,
    "SignatureDoesNotMatch": ErrorClass.ACCESS_DENIED,
}
_TRANSIENT_CODES = frozenset(
    {"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException"}
)
_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")


def refusal(status: int, body: bytes, retry_after: str | None, now: datetime) -> JobError:
    """Return the error for any answer but 200; a code in the start of an object store's XML body goes before status."""
    match = _CODE.search(body)
    code = match[1].decode() if match else None
    reason = f"the server answered {status}" + (f" {code}" if code else "")
    if code in _TRANSIENT_CODES or (code not in _BY_CODE and (status in _TRANSIENT or 500 <= status <= 599)):
        return TransientJobError(ErrorClass.HTTP_ERROR, reason, retry_after_seconds(retry_after, now))
    by_status = _BY_STATUS.get(status, ErrorClass.HTTP_ERROR)
    return JobError(_BY_CODE.get(code, by_status) if code else by_status, reason)


class Pace:
    """Tells a sender that is slower than `min_bytes_per_second` over a whole window; times are monotonic seconds."""

    def __init__(self, min_bytes_per_second: int, window_seconds: float, now: float) -> None:
        self._needed = min_bytes_per_second * window_seconds
        self._window_seconds = window_seconds
        self._start = now
        self._received = 0

    def is_too_slow(self, size_bytes: int, now: float) -> bool:
        """Count bytes that arrived at `now`; say whether the window that just ended had too few."""
        self._received += size_bytes
        if now - self._start < self._window_seconds:
            return False
        too_slow = self._received * self._window_seconds < self._needed * (now - self._start)
        self._start, self._received = now, 0
        return too_slow
