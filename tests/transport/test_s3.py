"""An object store over https with a CA of its own, with the certificates that a real server shows."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.services import minio
from tests.services.build import build
from tests.services.processes import free_ports, spawn, stop, tcp_answers, until_answers
from tests.transport.certificates import KINDS, Certificates
from v2td.config import FetchSettings, S3Settings
from v2td.errors import ErrorClass, JobError, ServiceError
from v2td.fetch import Downloader, ObjectStore

SECRET_KEY = "hunter2-hunter2"
BUCKET = "recordings"

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Shown:
    """A server that runs, and the kind of certificate that it shows."""

    port: int
    kind: str

    def settings(self, ca_file: Path | None) -> S3Settings:
        return S3Settings(
            endpoint_url=f"https://127.0.0.1:{self.port}",
            access_key="v2td",
            secret_key=SecretStr(SECRET_KEY),
            ca_file=ca_file,
            upload_bucket=BUCKET,
        )


@pytest.fixture(scope="module", params=KINDS)
def shown(
    certificates: Certificates, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("minio")
    keys = folder / "certs"
    keys.mkdir()
    pem = certificates.server(request.param)
    end_of_key = pem.index("-----BEGIN CERTIFICATE-----")
    (keys / "private.key").write_text(pem[:end_of_key])
    (keys / "public.crt").write_text(pem[end_of_key:])
    (folder / "buckets" / BUCKET).mkdir(parents=True)  # a folder there is a bucket
    port, console = free_ports(2)
    log = folder / "minio.log"
    address = ["--address", f"127.0.0.1:{port}", "--console-address", f"127.0.0.1:{console}"]
    environment = {"HOME": str(folder), "MINIO_ROOT_USER": "v2td", "MINIO_ROOT_PASSWORD": SECRET_KEY}
    process = spawn(
        "minio",
        [build().minio / "minio", "server", "--quiet", *address, "--certs-dir", keys, folder / "buckets"],
        log=log,
        cwd=folder,
        env=environment | {"MINIO_REGION": minio.REGION, "MINIO_BROWSER": "off", "MINIO_UPDATE": "off"},
    )
    try:
        asyncio.run(until_answers(process, lambda: tcp_answers(port), log=log, timeout_seconds=60))
        yield Shown(port, request.param)
    finally:
        stop(process)


@contextlib.asynccontextmanager
async def rooms(settings: S3Settings, folder: Path) -> AsyncIterator[tuple[ObjectStore, Downloader]]:
    fetch = FetchSettings(spool_dir=folder / "spool")
    async with ObjectStore(settings) as store, Downloader(fetch, settings) as downloader:
        yield store, downloader


async def refusals(settings: S3Settings, folder: Path) -> list[str]:
    """What `v2td check`, an upload and a download say; never the key."""
    recording = folder / "a.wav"
    recording.write_bytes(b"RIFF")
    async with rooms(settings, folder) as (store, downloader):
        with pytest.raises(ServiceError) as looked:
            await store.check()
        with pytest.raises(ServiceError) as sent:
            await store.upload(recording, BUCKET, "a.wav")
        with pytest.raises(JobError) as fetched:
            await downloader.fetch(f"s3://{BUCKET}/a.wav")
    assert fetched.value.error_class is ErrorClass.TLS_ERROR
    found = [str(looked.value), str(sent.value), str(fetched.value)]
    assert SECRET_KEY not in str(found)
    assert "Signature" not in str(found)
    return found


async def test_a_private_authority(shown: Shown, certificates: Certificates, tmp_path: Path) -> None:
    settings = shown.settings(certificates.ca_file)
    if shown.kind == "right":
        recording = tmp_path / "a.wav"
        recording.write_bytes(b"RIFF")
        async with rooms(settings, tmp_path) as (store, downloader):
            await store.upload(recording, BUCKET, "a.wav")
            audio = await downloader.fetch(f"s3://{BUCKET}/a.wav")
            assert audio.path.read_bytes() == b"RIFF"
            assert BUCKET in await store.check()
        return
    told = {"another host's": "certificate is not valid for '127.0.0.1'", "expired": "certificate has expired"}
    for error in await refusals(settings, tmp_path):
        assert told[shown.kind] in error


@pytest.mark.parametrize("ca", ["a stranger's", "the system's"])
async def test_a_server_that_nobody_vouches_for(
    ca: str, shown: Shown, certificates: Certificates, tmp_path: Path
) -> None:
    settings = shown.settings(certificates.wrong_ca_file if ca == "a stranger's" else None)
    for error in await refusals(settings, tmp_path):
        assert "certificate" in error
