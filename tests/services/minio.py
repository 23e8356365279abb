"""MinIO: an S3 server in one process, whose bucket events go to our Kafka."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from tests.services import golang
from tests.services.processes import Process, free_ports, spawn, tcp_answers, until_answers
from tests.services.state import Services

# MinIO's releases are dates, which Go's module system only knows as pseudo-versions.
VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
MODULE = "github.com/minio/minio"
REGION = "us-east-1"
NOTIFICATION_TOPIC = "v2td-minio-events"
# Where a bucket's notification configuration sends its events: the target named T1 below.
NOTIFICATION_ARN = "arn:minio:sqs::T1:kafka"

_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Server:
    """A data folder, ports and credentials; it can be launched, killed and launched again."""

    binary: Path
    folder: Path
    port: int
    console_port: int
    access_key: str
    secret_key: str
    kafka_bootstrap: str

    @property
    def endpoint(self) -> str:
        """The URL of the S3 API."""
        return f"http://127.0.0.1:{self.port}"


def build(folder: Path) -> None:
    """Compiles ``folder``/minio; minutes the first time.  Raises subprocess.CalledProcessError when Go fails."""
    golang.install(f"{MODULE}@{VERSION}", folder)


def prepare(build_folder: Path, folder: Path, *, secret_key: str, kafka_bootstrap: str) -> Server:
    """Chooses ports for a server on ``folder``, which sends events to the Kafka at ``kafka_bootstrap``."""
    port, console_port = free_ports(2)
    return Server(build_folder / "minio", folder, port, console_port, "v2td", secret_key, kafka_bootstrap)


def launch(server: Server, *, log: Path) -> Process:
    """Starts the server without waiting for it; Kafka must be up, or MinIO leaves the target out."""
    environment = {
        "HOME": str(server.folder),
        "MINIO_ROOT_USER": server.access_key,
        "MINIO_ROOT_PASSWORD": server.secret_key,
        "MINIO_REGION": REGION,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",  # it would ask a host on the internet for newer versions
        "MINIO_NOTIFY_KAFKA_ENABLE_T1": "on",
        "MINIO_NOTIFY_KAFKA_BROKERS_T1": server.kafka_bootstrap,
        "MINIO_NOTIFY_KAFKA_TOPIC_T1": NOTIFICATION_TOPIC,
    }
    address = ["--address", f"127.0.0.1:{server.port}", "--console-address", f"127.0.0.1:{server.console_port}"]
    command = [str(server.binary), "server", "--quiet", *address, str(server.folder / "buckets")]
    return spawn("minio", command, log=log, cwd=server.folder, env=environment)


async def ready(server: Server, process: Process, *, log: Path) -> None:
    """Waits until the server answers a signed request.  Raises ServiceError when it does not come up."""
    await until_answers(process, lambda: tcp_answers(server.port), log=log, timeout_seconds=_START_SECONDS)
    await until_answers(
        process,
        lambda: answers(server.endpoint, server.access_key, server.secret_key),
        log=log,
        timeout_seconds=_START_SECONDS,
    )


async def answers(endpoint: str, access_key: str, secret_key: str) -> None:
    """Raises botocore's errors unless the server at ``endpoint`` lists its buckets to these credentials."""
    async with client(endpoint, access_key, secret_key) as s3:
        await s3.list_buckets()


@asynccontextmanager
async def bucket(services: Services, prefix: str) -> AsyncIterator[str]:
    """The name of an empty bucket that begins with ``prefix``, removed at the end with all that it holds."""
    name = f"{prefix}-{secrets.token_hex(6)}"
    async with client(services.s3_endpoint, services.s3_access_key, services.s3_secret_key) as s3:
        await s3.create_bucket(Bucket=name)
        yield name
        async for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
            listed = (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
            if objects := [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in listed]:
                await s3.delete_objects(Bucket=name, Delete={"Objects": objects})
        await s3.delete_bucket(Bucket=name)


def client(endpoint: str, access_key: str, secret_key: str) -> Any:
    """An S3 client as an async context manager; path-style addresses, no retries: a test wants the first answer."""
    return get_session().create_client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=AioConfig(retries={"max_attempts": 0}, s3={"addressing_style": "path"}, connect_timeout=5),
    )
