"""What aiohttp's errors mean for the job; their own texts may hold URLs with signatures, so none is kept."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator

import aiohttp

from v2td.errors import ErrorClass, JobError, TransientJobError
from v2td.fetch.guard import ForbiddenAddressError


@contextlib.contextmanager
def as_job_errors() -> Iterator[None]:
    """Turn aiohttp's errors, and timeouts, into the job's."""
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        why = getattr(error.certificate_error, "verify_message", "") or "it does not match the host"
        raise JobError(ErrorClass.TLS_ERROR, f"certificate refused: {why}") from None
    except aiohttp.ClientSSLError:
        raise TransientJobError(ErrorClass.TLS_ERROR, "the TLS handshake failed") from None
    except aiohttp.ConnectionTimeoutError:
        raise TransientJobError(ErrorClass.TIMEOUT, "no connection within fetch.connect_seconds") from None
    except aiohttp.SocketTimeoutError:
        raise TransientJobError(ErrorClass.TIMEOUT, "the server was silent for fetch.read_seconds") from None
    except TimeoutError:
        raise TransientJobError(
            ErrorClass.TIMEOUT, "not done in time (fetch.total_seconds, or sooner for headers)"
        ) from None
    except aiohttp.ClientConnectorDNSError:
        raise TransientJobError(ErrorClass.HTTP_ERROR, "the host's name could not be resolved") from None
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, ForbiddenAddressError):
            raise JobError(ErrorClass.URL_FORBIDDEN, str(error.os_error.strerror)) from None
        reason = f"no connection: {error.os_error.strerror or 'refused or reset'}"
        raise TransientJobError(ErrorClass.HTTP_ERROR, reason) from None
    except aiohttp.ClientPayloadError:
        raise TransientJobError(ErrorClass.HTTP_ERROR, "the body ended early or is damaged") from None
    except aiohttp.ClientConnectionError as error:
        raise _lost(error) from None
    except aiohttp.InvalidURL:
        raise JobError(ErrorClass.URL_FORBIDDEN, "aiohttp takes this for no URL") from None
    except aiohttp.ClientError as error:
        raise JobError(ErrorClass.HTTP_ERROR, f"the answer is not valid HTTP ({type(error).__name__})") from None


def _lost(error: aiohttp.ClientConnectionError) -> TransientJobError:
    """Return the error for a connection that ended: since TLS 1.3 that may be what a server says to our certificate."""
    if isinstance(error.__cause__, ssl.SSLError):
        why = (error.__cause__.reason or "no reason").lower().replace("_", " ")
        return TransientJobError(ErrorClass.TLS_ERROR, f"the server ended TLS: {why}")
    return TransientJobError(ErrorClass.HTTP_ERROR, "the connection was lost")
