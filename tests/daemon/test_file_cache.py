"""Recordings that are kept on disk, by daemons that are killed; and one that comes in parts."""

from __future__ import annotations

import hashlib
import re

from tests.daemon.conftest import Daemon, World
from tests.services import minio
from v2td import bundled
from v2td.bundled.recordings import AUDIO

ONE = min(bundled.recordings(), key=lambda each: each.seconds)
KEPT = {"cache__file_bytes": 100_000_000, "cache__file_admission": "first"}


async def told(daemon: Daemon) -> dict[str, int]:
    """Downloads by how they went, the bytes that were spared and those that came."""
    text = await daemon.metrics()
    counts = {label: int(count) for label, count in re.findall(r'v2td_file_cache_total\{found="(\w+)"\} (\d+)', text)}
    spared = re.search(r"v2td_file_cache_hit_bytes_total ([\d.e+]+)", text)
    assert spared is not None
    fetched = sum(float(each) for each in re.findall(r"v2td_fetched_bytes_total\{.*\} ([\d.e+]+)", text))
    return {**{label: count for label, count in counts.items() if count}, "spared": int(float(spared[1]))} | {
        "fetched": int(fetched)
    }


async def test_a_recording_is_downloaded_once(world: World) -> None:
    size = (AUDIO / ONE.name).stat().st_size
    job = {"audio_url": f"{world.web}/{ONE.name}"}
    await world.submit(job)
    async with world.daemon(**KEPT) as daemon:
        await world.until_finished(1, 60)
        await world.submit(job)
        await world.until_finished(2, 60)
        assert await told(daemon) == {"none": 1, "hit": 1, "spared": size, "fetched": size}
        await daemon.kill()
    await world.submit(job)
    async with world.daemon(**KEPT) as daemon:
        await world.until_finished(3, 60)
        assert await told(daemon) == {"hit": 1, "spared": size, "fetched": 0}
        assert await daemon.terminate() == 0
    rows = await world.rows("SELECT text, audio_sha256, audio_bytes FROM transcriptions")
    digest = hashlib.sha256((AUDIO / ONE.name).read_bytes()).hexdigest()
    assert [tuple(row.values()) for row in rows] == [(ONE.text, digest, size)] * 3


async def test_a_version_of_an_object_in_parts(world: World, bucket: str) -> None:
    services = world.services
    content = (AUDIO / ONE.name).read_bytes()
    async with minio.client(services.s3_endpoint, services.s3_access_key, services.s3_secret_key) as s3:
        await s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        older = await s3.put_object(Bucket=bucket, Key="a.wav", Body=content)
        await s3.put_object(Bucket=bucket, Key="a.wav", Body=b"no recording")
    await world.submit({"audio_url": f"s3://{bucket}/a.wav", "version_id": older["VersionId"]})
    async with world.daemon(s3__part_bytes=len(content) // 5, **KEPT) as daemon:
        await world.until_finished(1, 60)
        assert await told(daemon) == {"none": 1, "spared": 0, "fetched": len(content)}
    assert [row["text"] for row in await world.rows("SELECT text FROM transcriptions")] == [ONE.text]
