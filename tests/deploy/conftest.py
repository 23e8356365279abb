"""Two S3 servers over one folder, and nginx before them with the configuration of docs/deploy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.services import minio, nginx, versitygw
from tests.services.build import built
from tests.services.versitygw import Gateways
from v2td.config import S3Settings

CONFIGURATION = Path(__file__).parents[2] / "docs/deploy/nginx.conf"
BUCKET = "v2t-transcripts"


@dataclass(frozen=True, slots=True)
class Front:
    """nginx at `url`, and the servers behind it, which have the bucket."""

    url: str
    gateways: Gateways

    def settings(self, **values: object) -> S3Settings:
        keys = {
            "endpoint_url": self.url,
            "region": minio.REGION,
            "access_key": self.gateways.access_key,
            "secret_key": SecretStr(self.gateways.secret_key),
        }
        return S3Settings.model_validate(keys | values)


@pytest.fixture
async def gateways(tmp_path: Path) -> AsyncIterator[Gateways]:
    async with versitygw.running(built("versitygw") / "versitygw", tmp_path, 2) as found:
        async with minio.client(f"http://127.0.0.1:{found.ports[0]}", found.access_key, found.secret_key) as s3:
            await s3.create_bucket(Bucket=BUCKET)
        yield found


@pytest.fixture
async def front(gateways: Gateways, tmp_path: Path) -> AsyncIterator[Front]:
    folder = tmp_path / "nginx"
    folder.mkdir()
    async with nginx.running(CONFIGURATION.read_text(encoding="utf-8"), folder, gateways.ports) as url:
        yield Front(url, gateways)
