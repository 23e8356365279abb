"""Secrets: where their text really lies, and how settings are shown without it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from v2td.config.definitions import Definition
from v2td.config.problems import MASK
from v2td.config.settings import Settings
from v2td.errors import ConfigError

MAX_SECRET_BYTES = 65_536
PASSWORD_PARAMETERS = {"password", "sslpassword"}


def resolve(key: str, value: str, environ: Mapping[str, str]) -> str:
    """The secret that `value` stands for: `file:/path`, `env:NAME`, `credential:NAME`, or itself.

    Raises ConfigError naming `key` when it is not there or others could have read it.
    """
    scheme, colon, rest = value.partition(":")
    if not colon or scheme not in {"file", "env", "credential"}:
        return value
    if scheme == "env":
        secret = environ.get(rest, "")
        if not secret:
            raise ConfigError(key, value, f"environment variable {rest} is not set: set it or name another")
    elif scheme == "file":
        secret = _read(key, value, Path(rest), guarded=True)
    else:
        secret = _read(key, value, _credential(key, value, rest, environ), guarded=False)
    if not secret:
        raise ConfigError(key, value, "it is empty: write the secret into it")
    return secret


def is_reference(value: str) -> bool:
    """Whether `value` says where a secret lies instead of being one."""
    return value.startswith(("file:", "env:", "credential:"))


def with_secrets(definition: Definition, value: Any, change: Callable[[str, str], str], key: str = "") -> Any:
    """`value` with `change(key, text)` in the place of each secret text in it.

    Keys are those of problems: `fetch.hosts[0].bearer_token`. What is no text, or no table, stays as it is, for
    validation to refuse.
    """
    key = key or definition.key
    if definition.columns and isinstance(value, list):
        columns = {column.name: column for column in definition.columns}
        return [
            {
                name: with_secrets(columns[name], each, change, f"{key}[{index}].{name}") if name in columns else each
                for name, each in table.items()
            }
            if isinstance(table, dict)
            else table
            for index, table in enumerate(value)
        ]
    if definition.secret and isinstance(value, str):
        return change(key, value)
    if definition.secret and isinstance(value, dict):
        return {name: change(f"{key}.{name}", each) if isinstance(each, str) else each for name, each in value.items()}
    return value


def unconfigured(key: str, environ: Mapping[str, str]) -> str | None:
    """`credential:KEY` when systemd passed a credential called like the key."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    return f"credential:{key}" if folder and (Path(folder) / key).exists() else None


def _credential(key: str, value: str, name: str, environ: Mapping[str, str]) -> Path:
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        hint = f"no credentials were passed: add LoadCredential={name}:/path/to/secret to the systemd unit"
        raise ConfigError(key, value, hint)
    if name in {"", ".", ".."} or "/" in name:
        raise ConfigError(key, value, "a credential's name is a plain file name")
    return Path(folder) / name


def _read(key: str, value: str, path: Path, *, guarded: bool) -> str:
    """The text of a secret's file; `guarded`: its owner and mode must keep others out (systemd sees to credentials)."""
    try:
        # O_NONBLOCK: a FIFO must not hang us; fstat on what was opened, so that nothing is swapped in between.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(key, value, "not a regular file: name the file that holds the secret")
            if guarded:
                _check_guarded(key, value, path, status)
            content = os.read(descriptor, MAX_SECRET_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError(key, value, f"{error.strerror}: name a file that this user can read") from None
    except ValueError:  # a NUL in it
        raise ConfigError(key, value, "not a path: name a file that this user can read") from None
    if len(content) > MAX_SECRET_BYTES:
        raise ConfigError(key, value, f"longer than {MAX_SECRET_BYTES} bytes: this is no secret")
    try:
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ConfigError(key, value, "not UTF-8 text: write the secret as text") from None


def _check_guarded(key: str, value: str, path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid not in {0, os.geteuid()}:
        raise ConfigError(key, value, f"owned by user {status.st_uid}: run chown {os.geteuid()} {path}")
    if mode not in {0o600, 0o400}:
        raise ConfigError(key, value, f"its mode is {mode:04o}, it must be 0600 or 0400: run chmod 600 {path}")


def without_password(dsn: str) -> str:
    """`dsn` without its password, user and parameters kept; all of it masked when it cannot be taken apart surely."""
    try:
        parts = urlsplit(dsn)
    except ValueError:
        return MASK
    # A raw /, ? or # in a password ends the authority too early: the @ is then found behind it.
    if not parts.scheme or "@" in parts.path + parts.query + parts.fragment or "://" not in dsn:
        return MASK
    credentials, at, hosts = parts.netloc.rpartition("@")
    user = credentials.partition(":")[0]
    kept = [part for part in parts.query.split("&") if unquote(part.partition("=")[0]) not in PASSWORD_PARAMETERS]
    query = "?" + "&".join(kept) if kept != [""] and kept else ""
    return f"{parts.scheme}://{user}{at}{hosts}{parts.path}{query}"


def holds_secret(key: str, value: str) -> bool:
    """Whether a literal is secret in itself: a DSN without a password is not."""
    return not key.endswith("dsn") or without_password(value) != value


def redacted(settings: Settings) -> dict[str, Any]:
    """All settings as JSON values for people to see: DSNs without password, other secrets masked.

    Of webhooks.url the query is masked too, which may be what its receiver knows us by.
    """
    shown: dict[str, Any] = settings.model_dump(mode="json")  # pydantic masks SecretStr
    for name in ("dsn", "read_dsn"):
        secret: SecretStr | None = getattr(settings.database, name)
        if secret is not None:
            shown["database"][name] = without_password(secret.get_secret_value())
    if (url := settings.webhooks.url) is not None and "?" in url:
        shown["webhooks"]["url"] = f"{url.partition('?')[0]}?{MASK}"
    return shown
