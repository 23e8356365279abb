"""What MinIO announces of the files that v2td writes, and of recordings: the former become no jobs."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer

from tests.outputs.conftest import s3_settings, transcript
from tests.services import minio
from tests.services.state import Services
from v2td.config import OutputSettings
from v2td.fetch import ObjectStore
from v2td.messages.notifications import created, job_fields
from v2td.outputs import Outputs


async def events(services: Services, bucket: str, count: int) -> list[dict[str, Any]]:
    """The first events of a bucket."""
    found: list[dict[str, Any]] = []
    async with AIOKafkaConsumer(
        services.notification_topic, bootstrap_servers=services.kafka_bootstrap, auto_offset_reset="earliest"
    ) as consumer:
        with suppress(TimeoutError):  # what came says more than that something did not
            async with asyncio.timeout(60):  # MinIO tries again what the broker did not take at once
                async for record in consumer:
                    event = json.loads(record.value)
                    if event["Records"][0]["s3"]["bucket"]["name"] == bucket:
                        found.append(event)
                    if len(found) == count:
                        break
    assert len(found) == count, [(each["EventName"], each["Key"]) for each in found]
    return found


async def test_files_of_transcripts_in_one_piece_and_in_parts(services: Services, notifying_bucket: str) -> None:
    settings = OutputSettings(bucket=notifying_bucket, formats=("json",), key="{stem}", part_bytes=5_242_880)
    async with (
        ObjectStore(s3_settings(services)) as store,
        minio.client(services.s3_endpoint, services.s3_access_key, services.s3_secret_key) as s3,
    ):
        outputs = Outputs(settings, store)
        await outputs.write(transcript(), "s3://calls/short.wav")
        await outputs.write(transcript(segments=40_000), "s3://calls/long.wav")
        await s3.put_object(Bucket=notifying_bucket, Key="one.wav", Body=b"RIFF")
    found = await events(services, notifying_bucket, 3)
    assert [each["Records"][0]["eventName"] for each in found] == [
        "s3:ObjectCreated:Put",
        "s3:ObjectCreated:CompleteMultipartUpload",
        "s3:ObjectCreated:Put",
    ]
    assert [len(created(each, 10)) for each in found] == [0, 0, 1]


async def test_of_two_versions_each_is_a_job_of_its_own(services: Services, notifying_bucket: str) -> None:
    async with minio.client(services.s3_endpoint, services.s3_access_key, services.s3_secret_key) as s3:
        await s3.put_bucket_versioning(Bucket=notifying_bucket, VersioningConfiguration={"Status": "Enabled"})
        put = [await s3.put_object(Bucket=notifying_bucket, Key="one.wav", Body=body) for body in (b"RIFF", b"OggS")]
        found = await events(services, notifying_bucket, 2)
        for each in put:
            await s3.delete_object(Bucket=notifying_bucket, Key="one.wav", VersionId=each["VersionId"])
    jobs = [job_fields(entry) for event in found for _, entry in created(event, 10)]
    url = f"s3://{notifying_bucket}/one.wav"
    assert jobs == [{"audio_url": url, "version_id": each["VersionId"]} for each in put]


async def test_what_is_said_of_an_old_object_is_no_new_one(services: Services, notifying_bucket: str) -> None:
    where = {"Bucket": notifying_bucket, "Key": "one.wav"}
    async with minio.client(services.s3_endpoint, services.s3_access_key, services.s3_secret_key) as s3:
        await s3.put_object(**where, Body=b"RIFF")
        await s3.put_object_tagging(**where, Tagging={"TagSet": [{"Key": "heard", "Value": "no"}]})
        await s3.delete_object_tagging(**where)
        await s3.copy_object(Bucket=notifying_bucket, Key="two.wav", CopySource=where)
        found = await events(services, notifying_bucket, 4)
    assert {each["Records"][0]["eventName"].removeprefix("s3:ObjectCreated:") for each in found} == {
        "Put",
        "PutTagging",
        "DeleteTagging",
        "Copy",
    }
    jobs = [job_fields(entry)["audio_url"] for event in found for _, entry in created(event, 10)]
    assert jobs == [f"s3://{notifying_bucket}/{name}.wav" for name in ("one", "two")]
