"""Why no broker lets us in: aiokafka raises "Unable to bootstrap" and only logs the reason."""

from __future__ import annotations

import logging
import re
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
from v2td.intake.tokens import TokenError

_REFUSED = (AuthenticationFailedError, SaslAuthenticationFailed)
_ABOUT_OUR_CERTIFICATE = re.compile("ALERT_.*(CERTIFICATE|UNKNOWN_CA)")
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
def explained(settings: KafkaSettings, operation: str, *, quiet: bool = False) -> Iterator[None]:
    """Raise errors of Kafka as ServiceError, with the reason that aiokafka only logged; `quiet` holds its logs back."""
    reasons = _Reasons()
    logger = logging.getLogger("aiokafka")
    logger.addHandler(reasons)
    propagated, logger.propagate = logger.propagate, logger.propagate and not quiet
    try:
        yield
    except (KafkaError, OSError, ValueError) as error:
        raise _explain(settings, operation, reasons.found[-1] if reasons.found else error) from error
    finally:
        logger.propagate = propagated
        logger.removeHandler(reasons)


def _explain(settings: KafkaSettings, operation: str, cause: BaseException) -> ServiceError:
    servers = ", ".join(settings.bootstrap_servers)
    if isinstance(cause, KafkaConnectionError) and isinstance(cause.__cause__, ssl.SSLError):
        cause = cause.__cause__  # since TLS 1.3 a client's certificate is judged after the handshake
    told = f"{type(cause).__name__}: {cause}"
    if isinstance(cause, TokenError):
        return ServiceError(operation, str(cause), "see kafka.sasl_token_provider, and what it needs")
    if isinstance(cause, _REFUSED):
        who = f"user {settings.sasl_username}" if settings.sasl_token_provider is None else "the token"
        return ServiceError(
            operation,
            f"authentication failed: {servers} refuses {who} ({told})",
            "check kafka.sasl_username, sasl_password (or sasl_token_provider) and sasl_mechanism",
        )
    if isinstance(cause, _NO_SASL):
        return ServiceError(
            operation,
            f"{servers} does not offer {settings.sasl_mechanism} over {settings.security_protocol}",
            "check kafka.security_protocol, sasl_mechanism and the port",
        )
    if isinstance(cause, ssl.SSLError):
        why = ": ".join(filter(None, (cause.reason or str(cause), getattr(cause, "verify_message", ""))))
        if _ABOUT_OUR_CERTIFICATE.search(why):
            why += ", which is: it " + ("refuses our certificate" if settings.ssl_client_pem else "asks us for one")
        return ServiceError(
            operation,
            f"TLS with {servers} failed: {why}",
            "check kafka.ssl_ca_file, ssl_client_pem, security_protocol, and the names in the brokers' certificates",
        )
    if isinstance(cause, KafkaConnectionError | OSError):
        return ServiceError(
            operation,
            f"no broker at {servers}: {told}",
            "is it running, and are kafka.bootstrap_servers and security_protocol right?",
        )
    return ServiceError(operation, told, "see [kafka] in the config, and the broker's ACLs")
