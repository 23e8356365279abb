"""What a server says to tell one state of a file from the next. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from aiohttp import hdrs
from multidict import MultiMapping
from yarl import URL

MAX_CHARACTERS = 1024

_SIGNATURE = frozenset(
    f"X-Amz-{name}"
    for name in ("Algorithm", "Credential", "Date", "Expires", "Security-Token", "Signature", "SignedHeaders")
)
_STRONG = re.compile(r'"[\x21\x23-\x7e]*"')


@dataclass(frozen=True, slots=True)
class Validator:
    """A strong ETag, and a digest of the place that it was said of: another place may use the same for other bytes.

    Last-Modified does not do: servers say "not modified" also of a file that was put back and is older than ours.
    """

    etag: str
    place: str

    @staticmethod
    def of(headers: MultiMapping[str], target: URL) -> Validator | None:
        """Return that of an answer; None where there is none, or the server does not want it kept."""
        if "no-store" in ",".join(headers.getall(hdrs.CACHE_CONTROL, [])).lower():
            return None
        if "*" in ",".join(headers.getall(hdrs.VARY, [])):
            return None
        etag = headers.get(hdrs.ETAG, "")
        if len(etag) > MAX_CHARACTERS or not _STRONG.fullmatch(etag):
            return None
        return Validator(etag, place(target))

    def condition(self, target: URL) -> dict[str, str]:
        """Return the header that has a server send only other bytes than these; none at another place."""
        return {hdrs.IF_NONE_MATCH: self.etag} if place(target) == self.place else {}


def place(target: URL) -> str:
    """Return the digest of a URL without its S3 signature, which differs each time."""
    query = [pair for pair in target.raw_query_string.split("&") if pair.partition("=")[0] not in _SIGNATURE]
    plain = f"{str(target).partition('?')[0]}?{'&'.join(query)}"
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()
