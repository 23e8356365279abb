"""Certificates for the servers of these tests, made anew each time."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

HOST = "127.0.0.1"
KINDS = ("right", "another host's", "expired")  # what a server may show


@dataclass(frozen=True)
class Certificates:
    """An authority, one that nobody asked, and files of theirs in a folder."""

    folder: Path
    authority: trustme.CA
    stranger: trustme.CA

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def wrong_ca_file(self) -> Path:
        return self.folder / "stranger.pem"

    def server(self, kind: str) -> str:
        """Key and chain that a server shows, PEM."""
        host = "other.example" if kind == "another host's" else HOST
        return pem(issue(self.authority, host, expired=kind == "expired"))

    def client(self, kind: str) -> str:
        """Key and chain that a client shows, PEM."""
        authority = self.stranger if kind == "a stranger's" else self.authority
        return pem(issue(authority, "v2td", expired=kind == "expired"))


def make(folder: Path) -> Certificates:
    found = Certificates(folder, trustme.CA(organization_name="ours"), trustme.CA(organization_name="a stranger's"))
    found.authority.cert_pem.write_to_path(found.ca_file)
    found.stranger.cert_pem.write_to_path(found.wrong_ca_file)
    return found


def issue(authority: trustme.CA, name: str, *, expired: bool) -> trustme.LeafCert:
    end = datetime.now(UTC) + timedelta(days=-1 if expired else 1)
    return authority.issue_cert(name, not_before=end - timedelta(days=3), not_after=end)


def pem(certificate: trustme.LeafCert) -> str:
    """Key (PKCS 8, since Java reads no other) and chain."""
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return (text + b"".join(each.bytes() for each in certificate.cert_chain_pems)).decode()
