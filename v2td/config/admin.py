"""The settings of the admin endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Annotated

from pydantic import Field, SecretStr

from v2td.config.values import AbsolutePath, Count, Port, Seconds, Section, Text


class AdminSettings(Section):
    """The HTTP endpoint for machines: metrics, health, status."""

    enabled: bool = Field(True, description="Serve /metrics, /livez, /readyz, /status and /openapi.json.")
    host: Text = Field(
        "127.0.0.1",
        description="Address to listen on; one that other machines reach needs a token, which all but the two probes "
        "and the page's own files then ask for.",
    )
    port: Port = Field(9464, description="Port to listen on; 0 takes a free one and logs it.")
    socket: AbsolutePath | None = Field(
        None, description="Unix socket to listen on instead; only the service's user and root may connect to it."
    )
    token: Annotated[SecretStr, Field(min_length=16)] | None = Field(
        None,
        description="What callers send as `Authorization: Bearer …`; whatever writes, or shows what was said, asks for "
        "it everywhere. `openssl rand -hex 32` makes a good one.",
    )
    allowed_hosts: tuple[Text, ...] = Field(
        (),
        description="Names that requests may call us by (Host); addresses, localhost and the host above always may. It "
        "keeps out web pages whose name was pointed at us.",
    )
    tls_cert_file: AbsolutePath | None = Field(
        None, description="Certificate chain in PEM, read at start; without it the token crosses the network as it is."
    )
    tls_key_file: AbsolutePath | None = Field(None, description="Its private key in PEM.")
    page: bool = Field(True, description="Serve the page for people at /, which asks for the token where it is needed.")
    debug: bool = Field(
        True, description="Serve /debug/… to this machine with the token: profiles, the heap, tasks, slots, the loop."
    )
    max_body_bytes: Count = Field(65_536, description="Longest request body, uploaded recordings aside.")
    max_connections: Count = Field(
        100, description="Connections at once; beyond it the oldest that waits for no text is closed."
    )
    requests_per_second: Count = Field(
        20,
        description="From one address, the probes aside; ten seconds' worth may come at once. Scrapes need far less.",
    )
    request_seconds: Seconds = Field(
        10, description="Longest wait for a request to arrive whole and for its answer to be taken."
    )

    @property
    def local(self) -> bool:
        """Whether this machine alone can connect."""
        if self.socket is not None or self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:  # another name: whatever it stands for
            return False

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Other machines need a token; a certificate needs its key."""
        if not self.local and self.token is None:
            yield "host", "a loopback address, or admin.token set (openssl rand -hex 32)"
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            missing, given = ("tls_cert_file", "tls_key_file")[:: 1 if self.tls_cert_file is None else -1]
            yield missing, f"set together with {given}"
