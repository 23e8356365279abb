"""Why no broker lets us in: aiokafka raises "Unable to bootstrap" and only logs the reason."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from v2td.config import KafkaSettings
from v2td.errors import ServiceError

_REFUSED = (AuthenticationFailedError, SaslAuthenticationFailed)
_NO_SASL = (IllegalSaslStateError, UnsupportedSaslMechanismError)


class _Reasons(logging.Handler):
    """Keeps the exceptions that aiokafka logs instead of raising them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.args, tuple):
            self.found += [each for each in record.args if isinstance(each, BaseException)]


@contextmanager
def explained(settings: KafkaSettings, operation: str) -> Iterator[None]:
    """Raise errors of Kafka as ServiceError, with the reason that aiokafka only logged; its logs are held back."""
    reasons = _Reasons()
    logger = logging.getLogger("aiokafka")
    logger.addHandler(reasons)
    propagated, logger.propagate = logger.propagate, False
    try:
        yield
    except (KafkaError, ServiceError, OSError, ValueError) as error:
        if isinstance(error, ServiceError) and not isinstance(error.__cause__, KafkaError):
            raise
        cause = error.__cause__ or error
        raise _explain(settings, operation, reasons.found[-1] if reasons.found else cause) from error
    finally:
        logger.propagate = propagated
        logger.removeHandler(reasons)


def _explain(settings: KafkaSettings, operation: str, cause: BaseException) -> ServiceError:
    servers = ", ".join(settings.bootstrap_servers)
    told = f"{type(cause).__name__}: {cause}"
    if isinstance(cause, _REFUSED):
        return ServiceError(
            operation,
            f"authentication failed: {servers} refuses user {settings.sasl_username} ({told})",
            "check kafka.sasl_username, sasl_password and sasl_mechanism",
        )
    if isinstance(cause, _NO_SASL):
        return ServiceError(
            operation,
            f"{servers} does not offer {settings.sasl_mechanism} over {settings.security_protocol}",
            "check kafka.security_protocol, sasl_mechanism and the port",
        )
    if isinstance(cause, ssl.SSLError):
        return ServiceError(
            operation,
            f"TLS with {servers} failed: {cause.reason or cause}",
            "check kafka.ssl_ca_file, security_protocol and the port",
        )
    if isinstance(cause, FileNotFoundError | PermissionError | IsADirectoryError):
        return ServiceError(operation, f"{settings.ssl_ca_file}: {cause.strerror}", "check kafka.ssl_ca_file")
    if isinstance(cause, KafkaConnectionError | OSError):
        return ServiceError(
            operation,
            f"no broker at {servers}: {told}",
            "is it running, and are kafka.bootstrap_servers and security_protocol right?",
        )
    return ServiceError(operation, told, "see [kafka] in the config, and the broker's ACLs")
