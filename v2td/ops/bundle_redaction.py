"""What must not leave the house with a bug report: secrets, what recordings are called, where they lie."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pydantic import SecretStr

from v2td.config import Settings

MASK = "***"
LONG = 8  # characters from which a secret is sought within words, too
_URL = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{1,20})://([^\s\"'<>\\]*)")
_PRIVATE_KEYS = frozenset(
    ("job_id", "tenant", "metadata", "audio_url", "url", "prompt", "text", "hotwords", "webhook_url")
)
# A field of a line that is no JSON object: of the console's format, or of a line that journald cut.
_PRIVATE_FIELD = re.compile(
    rf"""(?<!\w)(["']?(?:{"|".join(sorted(_PRIVATE_KEYS))})["']?(?:=|:\s*))"""
    r"""('(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?|[\[{].*|[^\s,}\]]+)"""
)


class Redaction:
    """Knows all secrets of the settings."""

    def __init__(self, settings: Settings) -> None:
        words = {form for secret in _secrets(settings) for form in _forms(secret)}
        patterns = [
            re.escape(word) if len(word) >= LONG else rf"(?<![\w]){re.escape(word)}(?![\w])"
            for word in sorted(words, key=len, reverse=True)
        ]
        self._secrets = re.compile("|".join(patterns)) if patterns else None

    def text(self, text: str) -> str:
        """Return a text without secrets, and with no more of a URL than scheme, host and port."""
        return self._without_secrets(_URL.sub(_place, text))

    def log(self, text: str) -> str:
        """Return lines of the log, besides, without what jobs are called and where recordings lie."""
        return "".join(f"{self._line(line)}\n" for line in text.splitlines())

    def value(self, value: Any) -> Any:
        """Return a JSON value with all of its texts redacted."""
        if isinstance(value, dict):
            return {str(key): self.value(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(each) for each in value]
        return self.text(value) if isinstance(value, str) else value

    def _line(self, line: str) -> str:
        line = _URL.sub(r"\1://…", line)
        try:
            entry = json.loads(line) if line.startswith("{") else None
        except ValueError:
            entry = None
        if entry is None:
            line = _PRIVATE_FIELD.sub(r"\1…", line)
        else:
            line = json.dumps(
                {key: "…" if key in _PRIVATE_KEYS else value for key, value in entry.items()}, ensure_ascii=False
            )
        return self._without_secrets(line)

    def _without_secrets(self, text: str) -> str:
        return self._secrets.sub(MASK, text) if self._secrets else text


def _place(match: re.Match[str]) -> str:
    host = re.split(r"[/?#]", match[2], maxsplit=1)[0].rpartition("@")[2]
    return f"{match[1]}://{host}" + ("" if match[2].endswith(host) else "/…")


def _secrets(settings: Settings) -> Iterator[str]:
    """Yield all secret values, however deep they lie; of those with a place for a password that one, too."""

    def within(value: Any) -> Iterator[str]:
        if isinstance(value, SecretStr):
            yield value.get_secret_value()
        elif isinstance(value, dict):
            for each in value.values():
                yield from within(each)
        elif isinstance(value, list | tuple | set | frozenset):
            for each in value:
                yield from within(each)

    for secret in within(settings.model_dump()):
        if secret:
            yield secret
            yield from _passwords(secret)


def _passwords(secret: str) -> Iterator[str]:
    if "://" not in secret:
        return
    try:
        password = urlsplit(secret).password
    except ValueError:
        return
    if password:
        yield password
        yield unquote(password)


def _forms(secret: str) -> set[str]:
    """Return how a secret may be written: as it is, in JSON, in a URL."""
    return {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], quote(secret, safe="")}
