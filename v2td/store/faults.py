"""What an error of Postgres means for the rows at hand, and how to say it to a person. Pure."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from urllib.parse import urlsplit

import asyncpg

from v2td.config import without_password
from v2td.errors import ServiceError


class Verdict(Enum):
    """What to do with a batch that could not be written."""

    RETRY = "Postgres is in trouble or out of reach: the same again, later"
    BAD_ROW = "a row of the batch cannot be stored"
    NO_PARTITION = "the month's partition of transcript_segments is missing: ours to make"
    STOP = "no retry can help: a person must act"


_STOP_CLASSES = ("28", "3D", "42")
_BAD_ROW_CLASSES = ("22", "23", "54")

_HINTS = (  # by SQLSTATE, the longest prefix first
    ("28", "check the user and the password in database.dsn, and the server's pg_hba.conf"),
    ("3D", "create the database, or name another one in database.dsn"),
    ("42501", "the user of database.dsn needs the right to create tables and to write to those of v2td"),
    ("42", "run `v2td db upgrade`; the tables are not as this version of v2td needs them"),
    ("53300", "raise max_connections of the server or lower database.pool_max"),
    ("57", "Postgres is starting up or shutting down: try again"),
)

_DSN_PROBLEM = "the DSN cannot be read"  # in our words: those of its parser may quote a piece of the password
_NO_AUTHORITY = "sslmode asks for CA certificates, and none are named or readable"
_FILE_HINT = "is there the socket, or the sslrootcert, sslcert and sslkey that database.dsn names, for this user?"
_TLS_HINT = "check sslmode and sslrootcert in database.dsn, and the name in the server's certificate"
_DSN_HINT = "database.dsn reads postgresql://user:password@host:port/name, with special characters as %XX"


def verdict(error: BaseException) -> Verdict | None:
    """Judge an error of a write by its SQLSTATE, or by its type when it came from the client's side.

    None for an error that is none of Postgres's: a bug, or a cancellation. What no rule names is retried: of all
    mistakes that is the one that loses nothing.
    """
    match error:
        case asyncpg.PostgresError():
            return _verdict_of_sqlstate(error)
        case asyncpg.exceptions.ClientConfigurationError():
            return Verdict.STOP
        case ValueError() | OverflowError() | RecursionError():  # a value that asyncpg or json could not encode
            return Verdict.BAD_ROW
        case asyncpg.InterfaceError() | asyncpg.InternalClientError() | OSError() | TimeoutError() | EOFError():
            return Verdict.RETRY
        case _:
            return None


def _verdict_of_sqlstate(error: asyncpg.PostgresError) -> Verdict:
    sqlstate = error.sqlstate or ""
    # A CHECK of a table has a name; the lack of a partition has none (the message is in the server's language).
    if sqlstate == "23514" and error.constraint_name is None:
        return Verdict.NO_PARTITION
    if sqlstate.startswith(_STOP_CLASSES):
        return Verdict.STOP
    return Verdict.BAD_ROW if sqlstate.startswith(_BAD_ROW_CLASSES) else Verdict.RETRY


def describe(error: BaseException) -> str:
    """Return what went wrong in a line or two, without Postgres's DETAIL, which quotes rows."""
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        return _NO_AUTHORITY if _asks_for_authority(error) else _DSN_PROBLEM
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, asyncpg.PostgresError):
        return f"{error.args[0] if error.args else type(error).__name__} (SQLSTATE {error.sqlstate})"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def explain(operation: str, error: BaseException) -> ServiceError:
    """Return the error as one of ours, with a hint for the person who has to act."""
    return ServiceError(operation, describe(error), _hint(error))


@contextmanager
def explained(operation: str) -> Iterator[None]:
    """Raise errors of Postgres and of the connection as ServiceError; all others pass."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        raise explain(operation, error) from error  # TimeoutError is an OSError


@contextmanager
def connecting(server: str = "") -> Iterator[None]:
    """Raise whatever goes wrong while a connection is made as ServiceError, which names the `server`."""
    operation = f"connect to Postgres at {server}" if server else "connect to Postgres"
    try:
        with explained(operation):
            yield
    except ValueError:  # from the parser of DSNs
        raise ServiceError(operation, _DSN_PROBLEM, _DSN_HINT) from None


def server_of(dsn: str) -> str:
    """Return host, port and database of a DSN, for a person; nothing when they cannot be told apart surely."""
    parts = urlsplit(without_password(dsn))
    return parts.netloc.rpartition("@")[2] + parts.path if parts.scheme in ("postgres", "postgresql") else ""


def _asks_for_authority(error: BaseException) -> bool:
    return str(error).startswith("root certificate file")


def _hint(error: BaseException) -> str:
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        return _TLS_HINT if _asks_for_authority(error) else _DSN_HINT
    if isinstance(error, asyncpg.PostgresError):
        return next((hint for prefix, hint in _HINTS if (error.sqlstate or "").startswith(prefix)), "")
    if isinstance(error, ssl.SSLError) or "rejected SSL upgrade" in str(error):  # asyncpg's own words
        return _TLS_HINT
    if isinstance(error, FileNotFoundError | PermissionError):
        return _FILE_HINT
    return "is Postgres running, and reachable at the host and port in database.dsn?"
