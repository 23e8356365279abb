"""A broker with locks: what `v2td check` says when they do not open, and that they open."""

import asyncio
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.services import kafka
from tests.services.build import build
from tests.services.processes import free_ports, stop
from v2td.config import Settings
from v2td.ops.check import Check, checkers, run

PASSWORD = "correct-horse"
SECRET = "hunter2-hunter2"

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Locked:
    """The listeners of a broker, and the file of the CA that its certificate goes back to."""

    sasl: str
    tls: str
    ca: Path


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    folder = tmp_path_factory.mktemp("locked")
    log = folder / "kafka.log"
    plain, sasl, tls, controller = free_ports(4)
    module = "org.apache.kafka.common.security"
    extra = {
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{sasl},"
        f"SSL://127.0.0.1:{tls},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{sasl},SSL://127.0.0.1:{tls}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,"
        "SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": f"{module}.plain.PlainLoginModule required "
        f'user_v2td="{PASSWORD}";',
        "listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(_certificate(folder)),
    }
    node = replace(kafka.prepare(build().kafka, folder, log=log, extra=extra), port=plain)
    process = kafka.launch(node, log=log)
    try:
        asyncio.run(kafka.ready(node, process, log=log))
        yield Locked(f"127.0.0.1:{sasl}", f"127.0.0.1:{tls}", folder / "ca.pem")
    finally:
        stop(process)


def _certificate(folder: Path) -> Path:
    """A PEM with a self-signed certificate for 127.0.0.1 and its key; the certificate alone is in ca.pem."""
    key, certificate, both = folder / "key.pem", folder / "ca.pem", folder / "server.pem"
    name = ["-subj", "/CN=v2td test", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *name]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    both.write_text(key.read_text() + certificate.read_text())
    return both


async def check(**section: Any) -> Check:
    """What is said of the broker; without a secret, whatever it is."""
    settings = Settings.model_validate({"kafka": section})
    found = await run("kafka", checkers(settings, offline=False)["kafka"], settings)
    assert SECRET not in str(found)
    return found[0]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_a_wrong_password_is_named_as_such(locked: Locked, mechanism: str) -> None:
    found = await check(
        bootstrap_servers=[locked.sasl],
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism=mechanism,
        sasl_username="v2td",
        sasl_password=SECRET,
    )
    assert not found.ok
    assert f"authentication failed: {locked.sasl} refuses user v2td" in found.detail
    assert "kafka.sasl_username" in found.hint


async def test_the_right_password_opens(locked: Locked) -> None:
    found = await check(
        bootstrap_servers=[locked.sasl],
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_username="v2td",
        sasl_password=PASSWORD,
    )
    assert found.ok, found


async def test_a_mechanism_that_is_not_offered(locked: Locked) -> None:
    found = await check(
        bootstrap_servers=[locked.sasl],
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-256",
        sasl_username="v2td",
        sasl_password=SECRET,
    )
    assert "does not offer SCRAM-SHA-256 over SASL_PLAINTEXT" in found.detail


async def test_a_certificate_that_nobody_vouches_for(locked: Locked) -> None:
    found = await check(bootstrap_servers=[locked.tls], security_protocol="SSL")
    assert not found.ok
    assert f"TLS with {locked.tls} failed: " in found.detail
    assert "CERTIFICATE_VERIFY_FAILED" in found.detail
    assert "kafka.ssl_ca_file" in found.hint


async def test_the_right_authority_opens(locked: Locked) -> None:
    found = await check(bootstrap_servers=[locked.tls], security_protocol="SSL", ssl_ca_file=locked.ca)
    assert found.ok, found
