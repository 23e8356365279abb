"""Against a real MinIO: signatures are checked there, odd keys are stored there."""

import contextlib
import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.fetch.conftest import MakeDownloader, Serve, answer
from v2td.config import S3Settings, StoreSettings
from v2td.errors import ErrorClass, JobError, ServiceError, TransientJobError
from v2td.fetch import ObjectStore
from v2td.fetch.urls import S3Source
from v2td.jobs import Audio
from v2td.metrics import FETCHED_BYTES


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    file = tmp_path / "recording.wav"
    file.write_bytes(b"RIFF" * 100_000)
    return file


KEYS = {"access_key": "key", "secret_key": "canary-secret"}


def local(serving: str, **values: object) -> S3Settings:
    """Settings for a stand-in server that says what MinIO will not say on demand."""
    return S3Settings.model_validate({"endpoint_url": serving} | KEYS | values)


ODD_KEYS = [
    "a.wav",
    "deep/folder/a.wav",
    "a=b;c.wav",
    "with spaces and+plus.wav",
    "äöü-tiếng-Việt-🎤.wav",
    "question?mark.wav",
    "hash#tag.wav",
    "percent%2Fsign%.wav",
    "quote'\"<>&|`^{}[]$!~,:@.wav",
    "trailing space ",
    "tab\tnew\nline.wav",
    "//double//slash",
    "…/dots...wav",
]


async def test_odd_keys_are_stored_and_fetched(
    settings: S3Settings, bucket: str, make_downloader: MakeDownloader, tmp_path: Path
) -> None:
    downloader = await make_downloader(s3=settings, allowed_networks=())  # loopback, because the config names it
    before = FETCHED_BYTES.labels("s3")._value.get()
    async with ObjectStore(settings) as store:
        for number, key in enumerate(ODD_KEYS):
            content = f"content of {number}".encode()
            file = tmp_path / "upload"
            file.write_bytes(content)
            await store.upload(file, bucket, key)
            audio = await downloader.fetch(f"s3://{bucket}/{key}")
            assert audio.path.read_bytes() == content, key
            assert audio.sha256 == hashlib.sha256(content).hexdigest()
            assert audio.temporary
            downloader.discard(audio)
    assert FETCHED_BYTES.labels("s3")._value.get() > before


async def test_dots_in_a_key_are_not_resolved(
    settings: S3Settings, bucket: str, make_downloader: MakeDownloader, recording: Path
) -> None:
    """MinIO knows no key with `..`; what matters is that another object is not fetched in its place."""
    async with ObjectStore(settings) as store:
        await store.upload(recording, bucket, "up.wav")
    downloader = await make_downloader(s3=settings)
    with pytest.raises(JobError) as caught:
        await downloader.fetch(f"s3://{bucket}/dir/../up.wav")
    assert not isinstance(caught.value, TransientJobError)


async def test_dots_reach_the_server(serve: Serve, make_downloader: MakeDownloader) -> None:
    server = await serve(answer(body=b"up"))
    downloader = await make_downloader(s3=local(server.url("")), allowed_networks=())
    await downloader.fetch("s3://bucket/dir/../up.wav")
    assert server.requests[0].startswith("GET /bucket/dir/../up.wav?X-Amz-")


async def test_missing(settings: S3Settings, bucket: str, make_downloader: MakeDownloader) -> None:
    downloader = await make_downloader(s3=settings)
    for url in (f"s3://{bucket}/missing.wav", f"s3://{bucket}-not/a.wav"):
        with pytest.raises(JobError) as caught:
            await downloader.fetch(url)
        assert caught.value.error_class is ErrorClass.NOT_FOUND
        assert "NoSuch" in caught.value.reason


@pytest.mark.parametrize("wrong", [{"secret_key": SecretStr("canary-secret")}, {"access_key": "nobody"}])
async def test_wrong_credentials(
    wrong: dict[str, object], settings: S3Settings, bucket: str, make_downloader: MakeDownloader, recording: Path
) -> None:
    bad = settings.model_copy(update=wrong)
    downloader = await make_downloader(s3=bad)
    with pytest.raises(JobError) as caught:
        await downloader.fetch(f"s3://{bucket}/a.wav")
    assert caught.value.error_class is ErrorClass.ACCESS_DENIED
    assert not isinstance(caught.value, TransientJobError)
    async with ObjectStore(bad) as store:
        for call in (store.check(), store.upload(recording, bucket, "a.wav")):
            with pytest.raises(ServiceError, match=r"SignatureDoesNotMatch|InvalidAccessKeyId") as refused:
                await call
            assert "[s3]" in refused.value.hint
            assert "canary" not in str(refused.value)


async def test_check(settings: S3Settings, bucket: str) -> None:
    async with ObjectStore(settings) as store:
        assert "list of buckets" in await store.check()
    async with ObjectStore(settings.model_copy(update={"upload_bucket": bucket})) as store:
        assert bucket in await store.check()
    async with ObjectStore(settings.model_copy(update={"upload_bucket": f"{bucket}-not"})) as store:
        with pytest.raises(ServiceError, match="NoSuchBucket"):
            await store.check()


async def test_check_of_a_dead_endpoint() -> None:
    async with ObjectStore(local("http://127.0.0.1:1")) as store:
        with pytest.raises(ServiceError, match=r"127\.0\.0\.1:1"):
            await store.check()


async def test_allowed_buckets(settings: S3Settings, bucket: str, make_downloader: MakeDownloader) -> None:
    downloader = await make_downloader(s3=settings.model_copy(update={"allowed_buckets": ("other",)}))
    with pytest.raises(JobError) as caught:
        await downloader.fetch(f"s3://{bucket}/a.wav")
    assert caught.value.error_class is ErrorClass.URL_FORBIDDEN


async def test_endpoint_is_private_for_other_urls(
    settings: S3Settings, bucket: str, make_downloader: MakeDownloader
) -> None:
    """That the config names the store does not open it to http URLs of messages."""
    downloader = await make_downloader(s3=settings, allowed_networks=())
    with pytest.raises(JobError) as caught:
        await downloader.fetch(f"{settings.endpoint_url}/{bucket}/a.wav")
    assert caught.value.error_class is ErrorClass.URL_FORBIDDEN


async def test_store_redirects_nowhere(serve: Serve, make_downloader: MakeDownloader) -> None:
    listener = await serve(answer(body=b"inside"))
    server = await serve(answer("307 Temporary Redirect", location=listener.url()))
    downloader = await make_downloader(s3=local(server.url("")))
    with pytest.raises(JobError) as caught:
        await downloader.fetch("s3://bucket/a.wav")
    assert caught.value.error_class is ErrorClass.HTTP_ERROR
    assert listener.requests == []


async def test_slow_down(serve: Serve, make_downloader: MakeDownloader) -> None:
    body = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
    server = await serve(answer("503 Slow Down", body=body, retry_after="3"))
    downloader = await make_downloader(s3=local(server.url("")))
    with pytest.raises(TransientJobError, match="SlowDown") as caught:
        await downloader.fetch("s3://bucket/a.wav")
    assert caught.value.retry_after == 3
    assert "Signature" not in caught.value.reason


async def test_virtual_addressing(serve: Serve, make_downloader: MakeDownloader) -> None:
    async with ObjectStore(local("https://store.example:9000", addressing_style="virtual")) as store:
        target = await store.presign(S3Source("my-bucket", "a.wav"))
    assert (target.host, target.port) == ("my-bucket.store.example", 9000)
    assert "canary" not in str(target)


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "cn-north-1"])
@pytest.mark.parametrize("style", ["path", "virtual"])
async def test_addresses_at_aws(region: str, style: str) -> None:
    settings = S3Settings.model_validate(
        {"access_key": "key", "secret_key": "secret", "region": region, "addressing_style": style}
    )
    async with ObjectStore(settings) as store:
        target = await store.presign(S3Source("my-bucket", "a.wav"))
    assert str(target.host).endswith(("amazonaws.com", "amazonaws.com.cn"))
    assert target.scheme == "https"


@pytest.mark.parametrize("bucket", ["a..b", "my-bucket--x-s3", "arn-aws", "xn--bucket", "bucket.evil.example", "A_b"])
async def test_odd_buckets_stay_at_the_endpoint(bucket: str, serve: Serve, make_downloader: MakeDownloader) -> None:
    server = await serve(answer("404 X"))
    downloader = await make_downloader(s3=local(server.url("")))
    with pytest.raises(JobError):
        await downloader.fetch(f"s3://{bucket}/a.wav")
    assert all(head.startswith(f"GET /{bucket}/a.wav?") for head in server.requests)


async def test_no_credentials(make_downloader: MakeDownloader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    downloader = await make_downloader(s3=S3Settings())
    with pytest.raises(TransientJobError, match="access_denied: no credentials"):
        await downloader.fetch("s3://bucket/a.wav")


async def test_private_ca(
    serve: Serve, make_downloader: MakeDownloader, server_tls: ssl.SSLContext, certificate: Path, recording: Path
) -> None:
    server = await serve(answer(body=b"over TLS"), answer(), tls=server_tls)
    trusting = local(server.url("", scheme="https"), ca_file=certificate)
    audio = await (await make_downloader(s3=trusting)).fetch("s3://bucket/a.wav")
    assert audio.size_bytes == 8
    async with ObjectStore(trusting) as store:
        await store.upload(recording, "bucket", "a.wav")
    distrusting = local(server.url("", scheme="https"))
    with pytest.raises(JobError) as caught:
        await (await make_downloader(s3=distrusting)).fetch("s3://bucket/a.wav")
    assert caught.value.error_class is ErrorClass.TLS_ERROR


async def test_unusable_ca_file(make_downloader: MakeDownloader, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="ca_file"):
        await make_downloader(s3=local("https://store.example", ca_file=tmp_path / "missing.pem"))


@pytest.fixture
async def stores(serve: Serve, server_tls: ssl.SSLContext, certificate: Path) -> tuple[StoreSettings, ...]:
    """One with a CA of its own for calls-*, and one for two single buckets."""
    calls = await serve(answer(body=b"a call"), tls=server_tls)
    archive = await serve(answer(body=b"archived"))
    return tuple(
        StoreSettings.model_validate({"name": name, "buckets": buckets, "endpoint_url": url, "ca_file": ca} | KEYS)
        for name, buckets, url, ca in (
            ("calls", ["calls-*"], calls.url("", scheme="https"), certificate),
            ("archive", ["archive", "calls-2019"], archive.url(""), None),
        )
    )


async def test_each_bucket_at_its_store(
    stores: tuple[StoreSettings, ...],
    settings: S3Settings,
    bucket: str,
    make_downloader: MakeDownloader,
    recording: Path,
) -> None:
    """All others lie in the real MinIO of [s3]."""
    downloader = await make_downloader(s3=settings.model_copy(update={"stores": stores}), allowed_networks=())
    await downloader.store.upload(recording, bucket, "a.wav")
    found = {}
    for url in (f"s3://{bucket}/a.wav", "s3://calls-2026/a.wav", "s3://calls-2019/a.wav", "s3://archive/a.wav"):
        audio = await downloader.fetch(url)
        found[url.split("/")[2]] = audio.path.read_bytes()
    assert found == {
        bucket: recording.read_bytes(),
        "calls-2026": b"a call",
        "calls-2019": b"a call",  # the first table that fits counts
        "archive": b"archived",
    }
    assert await downloader.store.client("calls-1") is await downloader.store.client("calls-2")
    assert await downloader.store.client("calls-1") is not await downloader.store.client(bucket)


async def test_a_store_without_keys_has_those_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual chain: the environment, then files, then the cloud's own services."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
    store = {"name": "archive", "buckets": ["archive"], "endpoint_url": "http://127.0.0.1:1"}
    async with ObjectStore(S3Settings.model_validate({"stores": [store], **KEYS})) as objects:
        signed = {bucket: str(await objects.presign(S3Source(bucket, "a.wav"))) for bucket in ("archive", "calls")}
    assert "X-Amz-Credential=from-the-environment%2F" in signed["archive"]
    assert "X-Amz-Credential=key%2F" in signed["calls"]


async def test_uploads_are_not_hashed_for_a_signature(serve: Serve, recording: Path) -> None:
    """Of a part of 64 MiB the loop would stand still for a while."""
    server = await serve(answer())
    async with ObjectStore(local(server.url(""))) as store:
        await store.upload(recording, "bucket", "a.wav")
    assert "x-amz-content-sha256: unsigned-payload" in server.requests[0].lower()


async def test_errors_name_the_store(make_downloader: MakeDownloader, tmp_path: Path) -> None:
    store: dict[str, object] = {"name": "archive", "buckets": ["archive"], **KEYS}
    dead = S3Settings.model_validate({"stores": [store | {"endpoint_url": "http://127.0.0.1:1"}]})
    async with ObjectStore(dead) as objects:
        with pytest.raises(ServiceError, match=r"127\.0\.0\.1:1") as refused:
            await objects.check()
    assert "s3.stores archive" in refused.value.hint
    assert "canary" not in str(refused.value)
    with pytest.raises(ServiceError, match=r"s3\.stores archive\.ca_file"):
        await make_downloader(s3=S3Settings.model_validate({"stores": [store | {"ca_file": tmp_path / "none"}]}))


async def test_versions(settings: S3Settings, bucket: str, make_downloader: MakeDownloader) -> None:
    downloader = await make_downloader(s3=settings)
    client = await downloader.store.client(bucket)
    await client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    versions = [
        (await client.put_object(Bucket=bucket, Key="a.wav", Body=body))["VersionId"] for body in (b"first", b"second")
    ]
    for version, content in zip([*versions, None], [b"first", b"second", b"second"], strict=True):
        audio = await downloader.fetch(f"s3://{bucket}/a.wav", version)
        assert audio.path.read_bytes() == content
    with pytest.raises(JobError) as caught:
        await downloader.fetch(f"s3://{bucket}/a.wav", "00000000-0000-0000-0000-000000000000")
    assert caught.value.error_class is ErrorClass.NOT_FOUND


async def test_recordings_that_are_sent(make_downloader: MakeDownloader, spooled: Callable[[], list[Path]]) -> None:
    downloader = await make_downloader()
    with downloader.incoming() as incoming:
        incoming.write(b"sent ")
        incoming.write(b"to us")
    assert incoming.path.read_bytes() == b"sent to us"
    assert incoming.sha256 == hashlib.sha256(b"sent to us").hexdigest()
    downloader.discard(Audio(incoming.path, incoming.size_bytes, incoming.sha256, temporary=True))
    with contextlib.suppress(RuntimeError), downloader.incoming() as incoming:
        incoming.write(b"half")
        raise RuntimeError
    assert spooled() == []
