"""What of an audio_url may be shown."""

from __future__ import annotations

import re

# All are linear. _USERINFO is generous: parsers differ over backslashes, and slashes missing or too many.
_USERINFO = re.compile(r"\A(\s*+[A-Za-z][A-Za-z0-9+.-]*+:)?([/\\]*+)(?:[^/?#]*@[/\\]*+)+")
_UNDERSTOOD = re.compile(r"\A[A-Za-z][A-Za-z0-9+.-]*+://(?:\[[^]/?#@]*+\]|[^:/?#@]*+)(?::[0-9]*+)?(?=[/?#]|\Z)")
_HIDING_PLACE = re.compile("[@?#]")
_WHOLE_PATH = re.compile(r"\A(?:s3|file):", re.IGNORECASE)  # `?`, `#` and `@` are ordinary characters of a key


def without_secrets(url: str) -> str:
    """Drop userinfo, and query and fragment where the scheme has them (a presigned URL's query is a password).

    Takes any text, also one that is no URL. What is not scheme://host[:port]/… loses all before its last @,
    since a password may hold what ends a host.
    """
    if not _HIDING_PLACE.search(url):  # as nearly always
        return url
    url = _USERINFO.sub(r"\1\2", url)
    if _WHOLE_PATH.match(url):
        return url
    if not _UNDERSTOOD.match(url):
        url = url.rpartition("@")[2]
    return re.split("[?#]", url, maxsplit=1)[0]
