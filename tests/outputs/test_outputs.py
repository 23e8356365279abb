"""Files of transcripts against a real MinIO: where they lie, what they hold, and what becomes of trouble."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from tests.outputs.conftest import Proxy, s3_settings, transcript
from tests.services import minio
from tests.services.state import Services
from v2td import metrics
from v2td.config import OutputSettings, S3Settings
from v2td.errors import ErrorClass, JobError, TransientJobError
from v2td.fetch import ObjectStore
from v2td.formats import FORMATS
from v2td.jobs import Output, Segment
from v2td.outputs import Outputs
from v2td.outputs.outputs import CONTENT_TYPES

MakeOutputs = Callable[..., Awaitable[Outputs]]


@pytest.fixture
async def s3(services: Services) -> AsyncIterator[Any]:
    async with minio.client(services.s3_endpoint, services.s3_access_key, services.s3_secret_key) as client:
        yield client


@pytest.fixture
async def make(services: Services, bucket: str) -> AsyncIterator[MakeOutputs]:
    """``await make(s3={…}, **output settings)``: Outputs over a store of their own."""
    async with AsyncExitStack() as stack:

        async def made(s3: S3Settings | None = None, **settings: Any) -> Outputs:
            store = await stack.enter_async_context(ObjectStore(s3 or s3_settings(services)))
            return Outputs(OutputSettings(**({"bucket": bucket} | settings)), store)

        yield made


async def read(s3: Any, url: str) -> bytes:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    answer = await s3.get_object(Bucket=bucket, Key=key)
    return bytes(await answer["Body"].read())


async def keys(s3: Any, bucket: str) -> set[str]:
    return {each["Key"] for each in (await s3.list_objects_v2(Bucket=bucket)).get("Contents", ())}


async def test_all_formats_in_the_bucket(make: MakeOutputs, s3: Any, bucket: str) -> None:
    outputs = await make(formats=tuple(FORMATS))
    heard = transcript()
    written_before = metrics.OUTPUTS.labels("ok")._value.get()
    bytes_before = metrics.OUTPUT_BYTES._value.get()
    urls = await outputs.write(heard, heard.job.audio_url)
    stem = f"2026-09-21/Übergabe 1-{heard.job.id}"
    assert urls == tuple(f"s3://{bucket}/{stem}.{each}" for each in FORMATS)
    size = 0
    for name, url in zip(FORMATS, urls, strict=True):
        head = await s3.head_object(Bucket=bucket, Key=url.removeprefix(f"s3://{bucket}/"))
        assert head["ContentType"] == CONTENT_TYPES[name]
        assert head["Metadata"] == {"v2td-id": str(heard.job.id)}
        size += head["ContentLength"]
    assert json.loads(await read(s3, urls[1]))["text"] == "Câu số 0. Câu số 1."
    assert (await read(s3, urls[2])).decode().startswith("1\n00:00:00,000 --> 00:00:00,900\nCâu số 0.\n")
    assert metrics.OUTPUTS.labels("ok")._value.get() - written_before == len(FORMATS)
    assert metrics.OUTPUT_BYTES._value.get() - bytes_before == size


async def test_twice_is_the_same(make: MakeOutputs, s3: Any, bucket: str) -> None:
    outputs = await make(formats=("json",))
    heard = transcript()
    (url,) = await outputs.write(heard, heard.job.audio_url)
    first = await read(s3, url)
    assert await outputs.write(heard, heard.job.audio_url) == (url,)
    assert await read(s3, url) == first
    assert len(await keys(s3, bucket)) == 1


async def test_beside_the_recording(make: MakeOutputs, s3: Any, bucket: str) -> None:
    outputs = await make(bucket="v2t-elsewhere", formats=("srt", "txt"), where="source")
    url = f"s3://{bucket}/drop in/Übergabe 1.wav"
    heard = transcript(url=url)
    await s3.put_object(Bucket=bucket, Key="drop in/Übergabe 1.wav", Body=b"RIFF")
    await outputs.write(heard, url)
    assert await keys(s3, bucket) == {f"drop in/Übergabe 1.{each}" for each in ("wav", "srt", "txt")}


async def test_beside_what_no_bucket_has_is_the_bucket(make: MakeOutputs, s3: Any, bucket: str) -> None:
    outputs = await make(formats=("txt",), where="source", key="{stem}")
    heard = transcript(url="https://media.example.com/one.wav?token=secret")
    assert await outputs.write(heard, heard.job.audio_url) == (f"s3://{bucket}/one.txt",)
    assert await keys(s3, bucket) == {"one.txt"}


async def test_a_message_gets_its_own_besides(make: MakeOutputs, s3: Any, bucket: str) -> None:
    outputs = await make(formats=("txt",), key="all/{stem}")
    heard = transcript(output=Output(bucket, "mine/odd + key?#%20.final", ("vtt", "tsv")))
    await outputs.write(heard, heard.job.audio_url)
    assert await keys(s3, bucket) == {
        "mine/odd + key?#%20.final.vtt",
        "mine/odd + key?#%20.final.tsv",
        "all/Übergabe 1.txt",
    }


async def test_the_same_file_is_written_once(make: MakeOutputs, bucket: str) -> None:
    outputs = await make(formats=("txt", "srt"), key="all/{stem}")
    heard = transcript(output=Output(bucket, "all/Übergabe 1", ("txt", "txt")))
    assert await outputs.write(heard, heard.job.audio_url) == (
        f"s3://{bucket}/all/Übergabe 1.txt",
        f"s3://{bucket}/all/Übergabe 1.srt",
    )


async def test_nobody_asks_nothing_is_opened(make: MakeOutputs) -> None:
    outputs = await make(s3=S3Settings(ca_file="/nowhere/ca.pem"))  # opening its client would raise
    assert await outputs.write(transcript(), "s3://calls/one.wav") == ()


async def test_half_a_character_and_nul_are_written(make: MakeOutputs, s3: Any) -> None:
    outputs = await make(formats=("txt", "json"))
    heard = transcript()
    odd = Segment(0.0, 1.0, "half \ud83c, nul \0", -0.1, 0.0, 1.0, 0.0)
    object.__setattr__(heard, "segments", (odd,))
    text, content = [await read(s3, url) for url in await outputs.write(heard, heard.job.audio_url)]
    assert text == b"half ?, nul \0\n"
    assert json.loads(content)["text"].startswith("half ?")


async def test_what_no_json_can_say_fails_the_job(make: MakeOutputs, s3: Any, bucket: str) -> None:
    outputs = await make(formats=("json",))
    heard = transcript()
    object.__setattr__(heard, "segments", (Segment(0.0, 1.0, "one", float("nan"), 0.0, 1.0, 0.0),))
    with pytest.raises(JobError, match="could not be written") as caught:
        await outputs.write(heard, heard.job.audio_url)
    assert caught.value.error_class is ErrorClass.OUTPUT_ERROR
    assert await keys(s3, bucket) == set()


BAD = [
    (Output("arn:aws:s3:us-east-1:1:accesspoint:x", "k", ("txt",)), "not a bucket's name"),
    (Output("No_Bucket", "k", ("txt",)), "not a bucket's name"),
    (Output("v2t-others", "k", ("txt",)), "neither in s3.allowed_buckets nor output.bucket"),
    (Output("v2t-mine", "k" * 1021, ("json",)), "longer than 1024 bytes"),
    (Output("v2t-mine", "ê" * 600, ("txt",)), "longer than 1024 bytes"),
    (Output("calls", "speech", ("txt", "json")), "the recording itself"),
]


@pytest.mark.parametrize(("output", "reason"), BAD, ids=[reason for _, reason in BAD])
async def test_what_no_attempt_cures_is_known_before(
    services: Services, make: MakeOutputs, output: Output, reason: str
) -> None:
    outputs = await make(s3=s3_settings(services, allowed_buckets=("calls",)), bucket="v2t-mine")
    heard = transcript(url="s3://calls/speech.json", output=output)
    with pytest.raises(JobError, match=reason) as caught:
        outputs.check(heard.job)
    assert caught.value.error_class is ErrorClass.OUTPUT_ERROR
    assert not isinstance(caught.value, TransientJobError)
    with pytest.raises(JobError, match=reason):
        await outputs.write(heard, heard.job.audio_url)


async def test_no_template_overwrites_the_recording(make: MakeOutputs, s3: Any, bucket: str) -> None:
    await s3.put_object(Bucket=bucket, Key="speech.json", Body=b"RIFF")
    for settings in ({"where": "source"}, {"key": "{path}"}):
        outputs = await make(formats=("txt", "json"), **settings)
        heard = transcript(url=f"s3://{bucket}/speech.json")
        with pytest.raises(JobError, match="the recording itself"):
            await outputs.write(heard, heard.job.audio_url)
    assert await keys(s3, bucket) == {"speech.json"}
    assert await read(s3, f"s3://{bucket}/speech.json") == b"RIFF"


async def test_a_missing_bucket_is_the_messages_fault_or_passes(make: MakeOutputs) -> None:
    failed_before = metrics.OUTPUTS.labels("failed")._value.get()
    outputs = await make(bucket="v2t-not-made-yet", formats=("txt",))
    with pytest.raises(TransientJobError, match=r"s3://v2t-not-made-yet/.* could not be written: NoSuchBucket"):
        await outputs.write(transcript(), "s3://calls/one.wav")
    heard = transcript(output=Output("v2t-nobody-has", "one", ("txt",)))
    outputs = await make()
    with pytest.raises(JobError, match="NoSuchBucket") as caught:
        await outputs.write(heard, heard.job.audio_url)
    assert not isinstance(caught.value, TransientJobError)
    assert metrics.OUTPUTS.labels("failed")._value.get() - failed_before == 2


async def test_a_key_that_the_server_refuses_is_the_messages_fault(make: MakeOutputs, bucket: str) -> None:
    outputs = await make()
    heard = transcript(output=Output(bucket, "a/../b", ("txt",)))
    with pytest.raises(JobError, match="could not be written") as caught:
        await outputs.write(heard, heard.job.audio_url)
    assert not isinstance(caught.value, TransientJobError)


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint_url": "http://127.0.0.1:1"},
        {"secret_key": SecretStr("canary-secret")},
        {"access_key": "nobody"},
    ],
    ids=["nobody listens", "wrong secret", "wrong key"],
)
async def test_a_store_in_trouble_passes(services: Services, make: MakeOutputs, wrong: dict[str, Any]) -> None:
    outputs = await make(s3=s3_settings(services, **wrong), formats=("txt", "json"))
    heard = transcript()
    with pytest.raises(TransientJobError, match="could not be written") as caught:
        await outputs.write(heard, heard.job.audio_url)
    assert caught.value.error_class is ErrorClass.OUTPUT_ERROR
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_busy_server_passes(services: Services, make: MakeOutputs, proxy: Proxy, status: int) -> None:
    async def busy(_: web.Request) -> web.Response:
        return web.Response(status=status)

    proxy.before = busy
    outputs = await make(s3=s3_settings(services, endpoint_url=proxy.url), formats=("txt",))
    with pytest.raises(TransientJobError):
        await outputs.write(transcript(), "s3://calls/one.wav")
    assert proxy.seen[0] == "PUT"


@pytest.mark.parametrize(
    ("status", "code", "asked", "passes"),
    [
        (403, "AccessDenied", True, False),
        (403, "AccessDenied", False, True),  # the configuration's bucket: somebody may open it to us
        (403, "InvalidAccessKeyId", True, True),
        (403, "RequestTimeTooSkewed", True, True),
        (400, "ExpiredToken", True, True),
        (400, "XMinioAdminBucketQuotaExceeded", False, True),
        (400, "AuthorizationHeaderMalformed", False, True),  # the region is wrong
        (400, "KeyTooLongError", True, False),
        (400, "InvalidURI", False, False),
        (405, "MethodNotAllowed", True, False),
        (409, "OperationAborted", True, True),
        (507, "XMinioStorageFull", True, True),
    ],
)
async def test_who_is_to_blame(
    services: Services, make: MakeOutputs, proxy: Proxy, *, status: int, code: str, asked: bool, passes: bool
) -> None:
    async def refuses(_: web.Request) -> web.Response:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
        return web.Response(status=status, text=text, content_type="application/xml")

    proxy.before = refuses
    outputs = await make(s3=s3_settings(services, endpoint_url=proxy.url), formats=() if asked else ("txt",))
    heard = transcript(output=Output("v2t-theirs", "key", ("txt",)) if asked else None)
    with pytest.raises(JobError, match=f"could not be written: {code}") as caught:
        await outputs.write(heard, heard.job.audio_url)
    assert caught.value.error_class is ErrorClass.OUTPUT_ERROR
    assert isinstance(caught.value, TransientJobError) is passes


async def test_no_credentials_pass(make: MakeOutputs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    outputs = await make(s3=S3Settings(endpoint_url="http://127.0.0.1:1"), formats=("txt",))
    with pytest.raises(TransientJobError, match="credentials"):
        await outputs.write(transcript(), "s3://calls/one.wav")


async def test_long_transcripts_go_up_in_parts(
    services: Services, make: MakeOutputs, s3: Any, bucket: str, proxy: Proxy
) -> None:
    outputs = await make(
        s3=s3_settings(services, endpoint_url=proxy.url), formats=("json",), part_bytes=5_242_880, parts=2
    )
    heard = transcript(segments=40_000)
    (url,) = await outputs.write(heard, heard.job.audio_url)
    content = json.loads(await read(s3, url))
    assert len(content["segments"]) == 40_000
    assert content["text"].endswith("Câu số 39999.")
    parts = [each for each in proxy.seen if each == "PUT partNumber uploadId"]
    assert len(parts) >= 2
    head = await s3.head_object(Bucket=bucket, Key=url.removeprefix(f"s3://{bucket}/"))
    assert head["Metadata"] == {"v2td-id": str(heard.job.id)}
    assert head["ContentType"] == "application/json"


async def test_the_loop_goes_on_while_a_long_transcript_is_written(make: MakeOutputs) -> None:
    outputs = await make(formats=("json", "srt"))
    heard = transcript(segments=40_000)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    beside = asyncio.create_task(other())
    await outputs.write(heard, heard.job.audio_url)
    beside.cancel()
    assert turns > 100
