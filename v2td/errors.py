"""The two kinds of error: the job's, which becomes a row, and ours, which never consumes a message."""

from __future__ import annotations

from enum import StrEnum


class ErrorClass(StrEnum):
    """Why a job failed: the closed set of `failures.error_class` and of the metric label `error_class`."""

    BAD_MESSAGE = "bad_message"
    BAD_FIELD = "bad_field"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    URL_FORBIDDEN = "url_forbidden"
    TOO_LARGE = "too_large"
    HTTP_ERROR = "http_error"
    NOT_FOUND = "not_found"
    ACCESS_DENIED = "access_denied"
    TLS_ERROR = "tls_error"
    TIMEOUT = "timeout"
    NOT_AUDIO = "not_audio"
    NO_AUDIO = "no_audio"
    BAD_PARAMS = "bad_params"
    FORMAT_FORBIDDEN = "format_forbidden"
    TRUNCATED = "truncated"
    TOO_LONG = "too_long"
    DECODER_CRASH = "decoder_crash"
    INFERENCE_CRASH = "inference_crash"
    PROVIDER_ERROR = "provider_error"
    OUTPUT_ERROR = "output_error"
    POISON = "poison"
    UNWRITABLE = "unwritable"


# What fails for a fault of ours at least as often as for one of the job's: many of them open the circuit.
PERHAPS_OURS = frozenset(
    {
        ErrorClass.HTTP_ERROR,
        ErrorClass.NOT_FOUND,
        ErrorClass.ACCESS_DENIED,
        ErrorClass.TLS_ERROR,
        ErrorClass.TIMEOUT,
        ErrorClass.DECODER_CRASH,
        ErrorClass.INFERENCE_CRASH,
        ErrorClass.PROVIDER_ERROR,
        ErrorClass.OUTPUT_ERROR,
        ErrorClass.POISON,
        ErrorClass.UNWRITABLE,
    }
)


class JobError(Exception):
    """The job's fault: it ends as a row in `failures` and a dead letter, and its offset advances.

    `reason` is one sentence for a person; it never holds a credential.
    """

    def __init__(self, error_class: ErrorClass, reason: str) -> None:
        super().__init__(error_class, reason)  # all arguments, so that a child process can pickle it
        self.error_class = error_class
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.error_class}: {self.reason}"


class TransientJobError(JobError):
    """A fault that another attempt may cure; after the last attempt it fails the job like any JobError.

    `retry_after` is the number of seconds the other side asked us to wait, or None.
    """

    def __init__(self, error_class: ErrorClass, reason: str, retry_after: float | None = None) -> None:
        super().__init__(error_class, reason)
        self.args = (error_class, reason, retry_after)
        self.retry_after = retry_after


class ProviderFailedError(TransientJobError):
    """A provider is to blame: another one, or another attempt, may do it."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(ErrorClass.PROVIDER_ERROR, reason, retry_after)
        self.args = (reason, retry_after)


class ProviderRefusedError(JobError):
    """A provider does not take this recording, and never will: another one may."""

    def __init__(self, reason: str) -> None:
        super().__init__(ErrorClass.PROVIDER_ERROR, reason)
        self.args = (reason,)


class ServiceError(Exception):
    """Our fault (a service is down, the model will not load): no message is consumed for it.

    `operation` says what was tried, `detail` what went wrong, `hint` what a person can do about it.
    """

    def __init__(self, operation: str, detail: str, hint: str = "") -> None:
        super().__init__(operation, detail, hint)
        self.operation = operation
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.operation}: {self.detail}" + (f" ({self.hint})" if self.hint else "")


class NoRoomError(ServiceError):
    """A disk or tmpfs of ours is full or read-only: waiting may cure it, and no message is consumed meanwhile."""


class ConfigError(ServiceError):
    """A setting is wrong: names the field, the value found there and the cure."""

    def __init__(self, field: str, value: str, hint: str) -> None:
        super().__init__(field, value, hint)
        self.field = field
        self.value = value

    def __str__(self) -> str:
        return f"{self.field} = {self.value}: {self.hint}"


def first_of(error: BaseException) -> BaseException:
    """Return the first error inside an exception group, however deep it lies; any other error itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
