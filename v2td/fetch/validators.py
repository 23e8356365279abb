"""What a server says to tell one state of a file from the next. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from aiohttp import hdrs
from multidict import MultiMapping
from yarl import URL

MAX_CHARACTERS = 1024

# Two changes in one second have the same Last-Modified; a file that rested so long before it was sent is told apart.
_REST_SECONDS = 60
_SIGNATURE = frozenset(
    f"X-Amz-{name}"
    for name in ("Algorithm", "Credential", "Date", "Expires", "Security-Token", "Signature", "SignedHeaders")
)
_STRONG = re.compile(r'"[\x21\x23-\x7e]*"')


@dataclass(frozen=True, slots=True)
class Validator:
    """A strong ETag or a Last-Modified that is as good, and a digest of the place that it was said of.

    Another place, such as a redirect leads to, may use the same ETag for other bytes.
    """

    etag: str | None
    last_modified: str | None
    place: str

    @staticmethod
    def of(headers: MultiMapping[str], target: URL) -> Validator | None:
        """Return that of an answer; None where there is none, or the server does not want it kept."""
        if "no-store" in ",".join(headers.getall(hdrs.CACHE_CONTROL, [])).lower():
            return None
        if "*" in ",".join(headers.getall(hdrs.VARY, [])):
            return None
        etag = headers.get(hdrs.ETAG, "")
        if len(etag) <= MAX_CHARACTERS and _STRONG.fullmatch(etag):
            return Validator(etag, None, place(target))
        modified = headers.get(hdrs.LAST_MODIFIED, "")
        at, sent = _date(modified), _date(headers.get(hdrs.DATE, ""))
        if at is None or sent is None or (sent - at).total_seconds() < _REST_SECONDS:
            return None
        return Validator(None, modified, place(target))

    def condition(self, target: URL) -> dict[str, str]:
        """Return the headers that have a server send only what is newer; none at another place."""
        if place(target) != self.place:
            return {}
        if self.etag is not None:
            return {hdrs.IF_NONE_MATCH: self.etag}
        return {hdrs.IF_MODIFIED_SINCE: self.last_modified} if self.last_modified else {}


def place(target: URL) -> str:
    """Return the digest of a URL without its S3 signature, which differs each time."""
    query = [pair for pair in target.raw_query_string.split("&") if pair.partition("=")[0] not in _SIGNATURE]
    plain = f"{str(target).partition('?')[0]}?{'&'.join(query)}"
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()


def _date(value: str) -> datetime | None:
    """Return an HTTP date, which names its zone; None for anything else."""
    try:
        date = parsedate_to_datetime(value) if len(value) <= MAX_CHARACTERS else None
    except (ValueError, OverflowError):
        return None
    return date if date is not None and date.tzinfo is not None else None
