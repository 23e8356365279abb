"""Where a transcript's files lie (pure): the template of `output.key`, filled in with values that stay in their place.

A value is a stranger's: it may not open folders, nor be written so that it equals another's.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from datetime import UTC, datetime
from pathlib import PurePosixPath
from urllib.parse import unquote

from v2td.jobs import Transcript
from v2td.messages import without_secrets

MAX_KEY_BYTES = 1024  # S3's own limit
MAX_VALUE_BYTES = 160  # of one value, so that id, date and suffix still fit a file's name
MAX_PATH_BYTES = 640
NOTHING = "_"  # what stands for a value that is not there

_S3 = re.compile(r"s3://([^/]+)/(.+)", re.IGNORECASE | re.DOTALL)
_OTHER = re.compile(r"[a-z][a-z0-9+.-]*://[^/]*/(.*)", re.IGNORECASE | re.DOTALL)
_PLAIN = frozenset("-_. @+=,()")  # besides letters, marks and digits of any script
_LAST_DAY = "9999-12-31"


def source_object(url: str) -> tuple[str, str] | None:
    """Return (bucket, key) of an s3:// URL; None for others."""
    match = _S3.fullmatch(url)
    return (match[1], match[2]) if match else None


def beside(key: str) -> str:
    """Return a recording's key without the suffix of its name: where players look for subtitles."""
    folder, slash, name = key.rpartition("/")
    return folder + slash + _stem(name)


def filled(template: str, transcript: Transcript, source_url: str) -> str:
    """Return the key, without a format's suffix, that the template (of OutputSettings) means for this transcript."""
    at = transcript.job.coordinates
    found = source_object(source_url)
    path = found[1] if found else _path(source_url)
    *folders, name = path.split("/")
    values = {
        "id": str(at.row_id()),
        "job_id": cleaned(transcript.job.job_id),
        "stem": cleaned(_stem(name)),
        "path": _cleaned_path([*folders, _stem(name)]),
        "bucket": cleaned(found[0] if found else None),
        "topic": cleaned(at.topic),
        "partition": str(at.partition),
        "offset": str(at.offset),
        "tenant": cleaned(transcript.job.tenant),
        "language": cleaned(transcript.language),
        "date": _date(at.timestamp_ms),
    }
    return template.format_map(values)


def cleaned(value: str | None) -> str:
    """Return a value as one part of a key: no slash, nothing unprintable, short.

    What had to be changed gets a digest of what it was, so that no two values become one.
    """
    if not value:
        return NOTHING
    kept = "".join(each if each in _PLAIN or unicodedata.category(each)[0] in "LMN" else "_" for each in value)
    kept = kept if kept.strip(".") else NOTHING  # . and .. are folders
    kept = _cut(kept, MAX_VALUE_BYTES)
    return kept if kept == value and kept != NOTHING else f"{kept}~{_digest(value)}"


def _cleaned_path(parts: list[str]) -> str:
    path = "/".join(map(cleaned, parts))
    return path if len(path.encode()) <= MAX_PATH_BYTES else f"{_cut(path, MAX_PATH_BYTES)}~{_digest('/'.join(parts))}"


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()[:16]


def _path(url: str) -> str:
    """Return the path of a URL that is not s3, decoded and without what may hold a password."""
    match = _OTHER.fullmatch(without_secrets(url))
    return unquote(match[1]) if match else ""


def _stem(name: str) -> str:
    # pathlib knows that .hidden has no suffix; a name of dots alone it would resolve.
    return PurePosixPath(name).stem if name.strip(".") else name


def _date(timestamp_ms: int) -> str:
    try:
        return datetime.fromtimestamp(max(timestamp_ms, 0) / 1000, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):  # a producer may write any time
        return _LAST_DAY
