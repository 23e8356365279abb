"""What of an audio_url may be shown."""

from __future__ import annotations

import re

_USERINFO = re.compile(r"\A(\s*[A-Za-z][A-Za-z0-9+.-]*:)?([/\\]*)[^/?#\\]*@")
_WHOLE_PATH = re.compile(r"\A(?:s3|file):", re.IGNORECASE)  # `?` and `#` are ordinary characters of a key


def without_secrets(url: str) -> str:
    """Drop userinfo, and query and fragment where the scheme has them (a presigned URL's query is a password).

    Takes any text, also one that is no URL; the rest stays as it was written.
    """
    url = _USERINFO.sub(r"\1\2", url)
    return url if _WHOLE_PATH.match(url) else re.split("[?#]", url, maxsplit=1)[0]
