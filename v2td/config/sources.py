"""The settings of where recordings come from: what may be reached, what private sources are shown, the store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_core import PydanticCustomError

from v2td.config.values import AbsolutePath, Count, Network, Port, Seconds, Section, Text

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
# What the download itself decides: with these a message could get past the limits of [fetch].
_OUR_HEADERS = frozenset(
    {"accept-encoding", "connection", "content-length", "expect", "host", "range", "te", "transfer-encoding", "upgrade"}
)
# The names that URLs may have; a last label that is a number is an address, or what resolvers read as one.
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z)({_LABEL}\.)*(?!([0-9]+|0x[0-9a-f]*)\Z){_LABEL}")


def _unfit(requirement: str) -> PydanticCustomError:
    return PydanticCustomError("requirement", "must be {requirement}", {"requirement": requirement})


def _host_pattern(pattern: str) -> str:
    """Return a pattern as hosts of URLs are compared with it: lower case, no last dot, addresses at their shortest."""
    host = pattern.lower().removesuffix(".")
    if _NAME.fullmatch(host.removeprefix("*.")):
        return host
    try:
        ip = ip_address(pattern[1:-1] if pattern.startswith("[") and pattern.endswith("]") else pattern)
    except ValueError:
        ip = None
    if ip is None or "%" in pattern:
        raise _unfit("a host such as media.example.com, *.example.com or 10.20.0.1, without scheme, port and path")
    return str((ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip)


def _token(secret: SecretStr) -> SecretStr:
    if not _TOKEN.fullmatch(secret.get_secret_value()):
        raise _unfit("a token without blanks: letters, digits and -._~+/, then any number of =")
    return secret


def _header_value(secret: SecretStr) -> SecretStr:
    if not _HEADER_VALUE.fullmatch(secret.get_secret_value()):
        raise _unfit("of values in printable ASCII that neither begin nor end with a blank")
    return secret


def _header_name(name: str) -> str:
    if name.lower() in _OUR_HEADERS:
        raise _unfit(f"without {name}, which the download itself decides")
    if not _HEADER_NAME.fullmatch(name):
        raise _unfit("of names such as X-Api-Key: letters, digits and hyphens")
    return name


HostPattern = Annotated[Text, AfterValidator(_host_pattern)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
HeaderValue = Annotated[SecretStr, AfterValidator(_header_value)]


class HostSettings(Section):
    """What one private source is shown, and nobody else."""

    pattern: HostPattern = Field(
        description="Host; *.example.com stands for all below it.", examples=["media.example.com"]
    )
    scheme: Literal["https", "http"] = Field("https", description="URLs of this scheme only.")
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="URLs of this port only; the scheme's own when unset."
    )
    bearer_token: Annotated[SecretStr, AfterValidator(_token)] | None = Field(
        None, description="Sent as Authorization: Bearer …"
    )
    headers: dict[HeaderName, HeaderValue] = Field({}, description="Headers to send; each value is a secret.")
    client_pem: SecretStr | None = Field(
        None, description="Client certificate and its unencrypted private key, PEM, one after the other."
    )
    ca_file: AbsolutePath | None = Field(
        None, description="CA certificates that sign the host's; the system's when unset."
    )

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """There is something to send or to trust, once, and certificates only where there is TLS."""
        if not (self.bearer_token or self.headers or self.client_pem or self.ca_file):
            yield "pattern", "followed by headers, bearer_token, client_pem or ca_file"
        if self.bearer_token and any(name.lower() == "authorization" for name in self.headers):
            yield "headers", "without Authorization, since bearer_token is set"
        if self.scheme == "http":
            for name in ("client_pem", "ca_file"):
                if getattr(self, name) is not None:
                    yield name, "unset, since scheme is http"


class EndpointSettings(Section):
    """An S3 server, and who we are there."""

    endpoint_url: Annotated[str, Field(pattern=r"^https?://[^@\s]+$", examples=["http://127.0.0.1:9000"])] | None = (
        Field(None, description="MinIO or another S3 server; AWS when unset.")
    )
    region: Text = Field("us-east-1", description="Region that requests are signed for.")
    access_key: Text | None = Field(None, description="Access key; the usual AWS chain when unset.")
    secret_key: SecretStr | None = Field(None, description="Secret key.")
    addressing_style: Literal["path", "virtual"] = Field("path", description="bucket in the path (MinIO) or the host.")
    ca_file: AbsolutePath | None = Field(None, description="CA certificates of the endpoint; the system's when unset.")

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Keys come in pairs."""
        if (self.access_key is None) != (self.secret_key is None):
            missing, given = ("access_key", "secret_key") if self.access_key is None else ("secret_key", "access_key")
            yield missing, f"set together with {given}"


class StoreSettings(EndpointSettings):
    """Another object store: buckets that lie elsewhere."""

    name: Text = Field(description="What it is called in errors.")
    buckets: Annotated[tuple[Text, ...], Field(min_length=1)] = Field(
        description="Its buckets; calls-* stands for all that begin so."
    )


class FetchSettings(Section):
    """Downloads, and what they may reach."""

    concurrency: Count = Field(16, description="Downloads at once.")
    max_bytes: Count = Field(2_147_483_648, description="Largest recording in bytes.")
    total_seconds: Seconds = Field(900, description="Longest download.")
    connect_seconds: Seconds = Field(10, description="Longest wait for a connection, TLS included.")
    read_seconds: Seconds = Field(30, description="Longest silence of a sender.")
    min_bytes_per_second: Annotated[int, Field(ge=0)] = Field(
        1024, description="A sender slower than this over 30 s is given up; 0 allows any."
    )
    max_redirects: Annotated[int, Field(ge=0, le=20)] = Field(
        5, description="Each target is checked like the first URL."
    )
    max_headers: Count = Field(128, description="Headers of an answer; servers send a tenth.")
    max_header_bytes: Count = Field(8190, description="Longest header of an answer, and longest status line.")
    allowed_ports: tuple[Port, ...] = Field((80, 443), description="Ports that http(s) URLs may name; empty: any.")
    allowed_networks: tuple[Network, ...] = Field(
        (), description="Private networks that http(s) URLs may reach all the same, such as 10.20.0.0/16."
    )
    allowed_hosts: tuple[HostPattern, ...] = Field(
        (), description="When not empty, only these hosts; *.example.com stands for all below it."
    )
    denied_hosts: tuple[HostPattern, ...] = Field(
        (), description="Never these hosts, written likewise, also when allowed."
    )
    file_roots: tuple[AbsolutePath, ...] = Field(
        (), description="Folders below which file:// URLs may lie; empty: none."
    )
    spool_dir: AbsolutePath | None = Field(
        None,
        description="Where downloads wait; the service's cache folder or the temporary folder when unset.",
    )
    # The last one: in TOML what follows a table belongs to it.
    hosts: tuple[HostSettings, ...] = Field(
        (),
        description="What private sources are shown; the first table that fits a message's URL counts. A redirect to "
        "another host, port or scheme ends it, even if it leads back. The limits above hold for these hosts too.",
    )

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """No single wait is longer than the download."""
        for name in ("connect_seconds", "read_seconds"):
            if getattr(self, name) > self.total_seconds:
                yield name, f"at most total_seconds ({self.total_seconds:g})"


class S3Settings(EndpointSettings):
    """The object store behind s3:// URLs."""

    allowed_buckets: tuple[Text, ...] = Field((), description="When not empty, only these buckets.")
    upload_bucket: Text | None = Field(None, description="Where `v2td submit FILE` puts local files.")
    part_bytes: Count = Field(67_108_864, description="Larger objects are read in parts of this size…")
    parts: Count = Field(4, description="…so many at once; 1 reads them in one piece.")
    presign_seconds: Annotated[int, Field(ge=1, le=604_800)] = Field(
        3600, description="How long a presigned download stays valid."
    )
    # The last one: in TOML what follows a table belongs to it.
    stores: tuple[StoreSettings, ...] = Field(
        (), description="Other object stores; the first table that has a URL's bucket counts, else the one above."
    )
