"""Private sources: what the config has us show them, to the very origin that a message named and to nobody else."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import hdrs
from yarl import URL

from v2td.config import HostSettings
from v2td.fetch.urls import DEFAULT_PORTS, is_listed, origin
from v2td.tls import show_certificate, verifying


@dataclass(frozen=True, slots=True)
class Access:
    """What requests carry: headers, and a TLS context where the session's own will not do."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: ssl.SSLContext | None = None


PUBLIC = Access()


class PrivateHosts:
    """Knows the tables of [[fetch.hosts]]. Making it reads files; ServiceError when a certificate is unusable."""

    def __init__(self, hosts: Sequence[HostSettings]) -> None:
        self._known = [(host, _access(host, f"fetch.hosts[{index}]")) for index, host in enumerate(hosts)]

    def access(self, target: URL) -> Access:
        """Return what the first table that fits a checked URL says; PUBLIC where none does."""
        scheme, name, port = origin(target)
        for host, access in self._known:
            wanted = (host.scheme, host.port or DEFAULT_PORTS[host.scheme])
            if (scheme, port) == wanted and is_listed(name, (host.pattern,)):
                return access
        return PUBLIC


def _access(host: HostSettings, setting: str) -> Access:
    headers = {name: value.get_secret_value() for name, value in host.headers.items()}
    if host.bearer_token is not None:
        headers[hdrs.AUTHORIZATION] = f"Bearer {host.bearer_token.get_secret_value()}"
    tls = None
    if host.ca_file is not None or host.client_pem is not None:
        tls = verifying(host.ca_file, f"{setting}.ca_file")
    if tls is not None and host.client_pem is not None:
        show_certificate(tls, host.client_pem, f"{setting}.client_pem")
    return Access(headers, tls)
