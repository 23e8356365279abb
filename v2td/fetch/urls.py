"""What a URL says and whether it may say it. Pure: names are not resolved here, `guard` judges the addresses."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from yarl import URL

from v2td.config import FetchSettings
from v2td.errors import ErrorClass, JobError
from v2td.fetch.guard import embedded
from v2td.messages import without_secrets

MAX_URL_CHARACTERS = 8192
DEFAULT_PORTS = {"http": 80, "https": 443}

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_HTTP = re.compile(r"(?i:https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?(?=[/?#]|\Z)")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_UNSENDABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_VERBATIM = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class HttpSource:
    """`target` is what aiohttp gets, byte for byte; `host` is without brackets, in lower case, addresses shortest."""

    target: URL
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class S3Source:
    """`key` is everything behind `s3://bucket/`, verbatim: nothing is decoded, ? and # belong to it."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class FileSource:
    """`path` is absolute, and not yet checked against the roots."""

    path: Path


Source = HttpSource | S3Source | FileSource


def parse(url: str, settings: FetchSettings) -> Source:
    """Tell what kind of source a URL names; raise JobError(url_forbidden) when it may not be named."""
    if len(url) > MAX_URL_CHARACTERS:
        raise _forbidden(f"the URL is longer than {MAX_URL_CHARACTERS} characters")
    if any("\ud800" <= character <= "\udfff" for character in url):
        raise _forbidden("the URL holds a lone surrogate")
    scheme = _scheme(url)
    if scheme in DEFAULT_PORTS:
        return parse_http(url, settings)
    if scheme == "s3":
        return _parse_s3(url)
    if scheme == "file":
        return _parse_file(url)
    raise _forbidden("only http, https, s3 and file URLs are fetched")


def parse_http(url: str, settings: FetchSettings) -> HttpSource:
    """Check an http(s) URL, also the target of a redirect; raise JobError(url_forbidden)."""
    if _UNSENDABLE.search(url):
        raise _forbidden("the URL holds a control character or bytes that are not UTF-8")
    match = _HTTP.match(url)
    if match is None:
        raise _forbidden(f"{without_secrets(url)} is not http(s)://host[:port]/… (no user name, the host in ASCII)")
    scheme = _scheme(url)
    host = _canonical(match["host"].strip("[]"))
    port = int(match["port"]) if match["port"] else DEFAULT_PORTS[scheme]
    if not _is_plain_host(host, in_brackets=match["host"].startswith("[")):
        raise _forbidden(f"{match['host']} is not a host name or a plainly written address")
    if not 0 < port <= 65535 or (settings.allowed_ports and port not in settings.allowed_ports):
        raise _forbidden(f"port {port} is not in fetch.allowed_ports")
    if settings.allowed_hosts and not is_listed(host, settings.allowed_hosts):
        raise _forbidden(f"host {host} is not in fetch.allowed_hosts")
    if any(is_listed(each, settings.denied_hosts) for each in (host, *_ends_at(host))):
        raise _forbidden(f"host {host} is in fetch.denied_hosts")
    # yarl rewrites what it quotes (`a=b;c`, `dir/../x`), which breaks signatures: only what must be quoted is.
    target = URL(url, encoded=_VERBATIM.fullmatch(url) is not None)
    if (_canonical(target.raw_host or ""), target.port) != (host, port):
        raise _forbidden(f"{without_secrets(url)} is ambiguous")  # one reader's host must be the other's
    return HttpSource(target, host, port)


def origin(target: URL) -> tuple[str, str, int]:
    """Return scheme, host and port of a checked URL: what has to stay the same where credentials are sent."""
    return target.scheme.lower(), _canonical(target.raw_host or ""), target.port or 0


def is_listed(host: str, patterns: Sequence[str]) -> bool:
    """Does a canonical host fit one of the config's patterns: itself, or *.example.com for all below that?

    An IPv4-mapped address is the IPv4 address: the kernel sends to the same machine.
    """
    host = host.removesuffix(".")
    if ":" in host:
        host = str(ipaddress.IPv6Address(host).ipv4_mapped or host)
    return any(host == pattern or (pattern.startswith("*.") and host.endswith(pattern[1:])) for pattern in patterns)


def _ends_at(host: str) -> Iterator[str]:
    """Yield the IPv4 addresses that packets to an IPv6 address end at: those are denied in every dress."""
    if ":" in host:
        yield from map(str, embedded(ipaddress.IPv6Address(host)))


def _parse_s3(url: str) -> S3Source:
    bucket, _, key = url[len("s3://") :].partition("/")
    if not url[len("s3:") :].startswith("//") or not _BUCKET.fullmatch(bucket) or not key:
        raise _forbidden("an s3 URL is s3://bucket/key")
    return S3Source(bucket, key)


def _parse_file(url: str) -> FileSource:
    match = re.fullmatch(r"(?i:file)://(?i:localhost)?(?P<path>/[^?#]*)", url)
    if match is None:
        raise _forbidden("a file URL is file:///path, with ? and # percent-encoded")
    path = unquote_to_bytes(match["path"])
    if b"\0" in path:
        raise _forbidden("the path holds a NUL")
    return FileSource(Path(os.fsdecode(path)))


def _scheme(url: str) -> str:
    match = _SCHEME.match(url)
    return match[1].lower() if match else ""


def _is_plain_host(host: str, *, in_brackets: bool) -> bool:
    """Refuse what resolvers read in their own ways: 127.1, 0x7f000001, 0177.0.0.1, empty or overlong labels."""
    if in_brackets:
        return _is_address(host, 6)
    labels = host.removesuffix(".").split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _is_address(host, 4)
    return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in labels)


def _canonical(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()


def _is_address(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def _forbidden(reason: str) -> JobError:
    # What a URL holds may steer a terminal (C1 controls) or turn its line around (bidirectional overrides).
    shown = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in reason)
    return JobError(ErrorClass.URL_FORBIDDEN, shown)
