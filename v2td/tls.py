"""Our side of TLS connections: whom we trust, and the certificate that we show. Blocks on reading small files."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from pydantic import SecretStr

from v2td.errors import ServiceError

_OPERATION = "set up TLS"


def verifying(ca_file: Path | None, setting: str) -> ssl.SSLContext:
    """Return a context that checks the other side's certificate and host name, by the system's CAs without `ca_file`.

    Raises ServiceError, which names the `setting`, when the file cannot be used.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # SSLError is one
        hint = f"name a readable file of CA certificates, PEM, in {setting}"
        raise ServiceError(_OPERATION, f"{setting} = {ca_file}: {_reason(error)}", hint) from None


def show_certificate(context: ssl.SSLContext, pem: SecretStr, setting: str) -> None:
    """Have `context` show the certificate in `pem`, chain and unencrypted key.

    Raises ServiceError, which names the `setting`, when they are unusable.
    """
    descriptor = os.memfd_create("client.pem")  # OpenSSL reads files only, and keys do not belong on a disk
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(pem.get_secret_value().encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_no_password)
    except (OSError, ValueError) as error:
        hint = f"{setting} is the certificate chain and its unencrypted private key, PEM, one after the other"
        raise ServiceError(_OPERATION, f"{setting}: {_reason(error)}", hint) from None
    finally:
        os.close(descriptor)


def _no_password() -> str:
    """Answer OpenSSL, which would ask on the terminal."""
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").lower().replace("_", " ")
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
