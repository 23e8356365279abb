"""Postgres by sslmode=verify-full, with the certificates that a real server shows."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.services import postgres
from tests.services.processes import stop
from tests.transport.certificates import KINDS, Certificates
from v2td import store
from v2td.config import DatabaseSettings
from v2td.errors import ServiceError

PASSWORD = "hunter2-hunter2"

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Shown:
    """A server that runs, and the kind of certificate that it shows."""

    server: postgres.Server
    kind: str


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    """A data folder; not below pytest's, which the server's user may not enter."""
    folder = Path(tempfile.mkdtemp(prefix="v2td-transport-"))
    folder.chmod(0o755)
    try:
        yield postgres.prepare(folder, password=PASSWORD, log=folder / "postgres.log")
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module", params=(*KINDS, "none"))
def shown(server: postgres.Server, certificates: Certificates, request: pytest.FixtureRequest) -> Iterator[Shown]:
    """The server with one kind of certificate after the other, and without TLS."""
    pem = server.data / "server.pem"
    pem.write_text(certificates.server(request.param))
    pem.chmod(0o600)
    if server.account is not None:
        os.chown(pem, server.account.uid, server.account.gid)
    log = server.data.parent / "postgres.log"
    tls = "off" if request.param == "none" else "on"
    options = ["-c", f"ssl={tls}", "-c", f"ssl_cert_file={pem}", "-c", f"ssl_key_file={pem}"]
    process = postgres.launch(server, log=log, options=options)
    try:
        asyncio.run(postgres.ready(server, process, log=log))
        yield Shown(server, request.param)
    finally:
        stop(process)


def dsn(server: postgres.Server, **parameters: object) -> str:
    return server.dsn + "?" + "&".join(f"{name}={value}" for name, value in parameters.items())


async def encrypted(dsn: str) -> bool:
    """Whether the pool's connections are; the schema is made by another way in."""
    await store.upgrade(dsn)
    async with store.open_database(DatabaseSettings(dsn=SecretStr(dsn))) as database, database.acquire() as connection:
        found: bool = await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        return found


async def refusals(dsn: str) -> list[str]:
    """What the pool, the migrations and `v2td check` say; never the password."""
    found = []
    with pytest.raises(ServiceError) as caught:
        async with store.open_database(DatabaseSettings(dsn=SecretStr(dsn))):
            pass
    found.append(str(caught.value))
    for look in (store.upgrade, store.schema_version):
        with pytest.raises(ServiceError) as caught:
            await look(dsn)
        found.append(str(caught.value))
    assert PASSWORD not in str(found)
    return found


TOLD = {
    "another host's": "certificate is not valid for '127.0.0.1'",
    "expired": "certificate has expired",
    "none": "rejected SSL upgrade",  # and nothing is sent in the clear
}


async def test_verify_full(shown: Shown, certificates: Certificates) -> None:
    target = dsn(shown.server, sslmode="verify-full", sslrootcert=certificates.ca_file)
    if shown.kind == "right":
        assert await encrypted(target)
        return
    for error in await refusals(target):
        assert TOLD[shown.kind] in error
        assert "sslmode" in error


async def test_a_server_that_nobody_vouches_for(shown: Shown, certificates: Certificates) -> None:
    for error in await refusals(dsn(shown.server, sslmode="verify-full", sslrootcert=certificates.wrong_ca_file)):
        assert TOLD["none"] in error if shown.kind == "none" else "certificate refused: " in error


async def test_an_authority_that_is_not_there(shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in await refusals(dsn(shown.server, sslmode="verify-full", sslrootcert=tmp_path / "missing.pem")):
        assert "No such file" in error
        assert "sslrootcert" in error
    monkeypatch.setenv("HOME", str(tmp_path))  # where libpq's usual place for it is
    for error in await refusals(dsn(shown.server, sslmode="verify-full")):
        assert "sslmode asks for CA certificates" in error
        assert "sslrootcert" in error
