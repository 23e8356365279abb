"""`v2td storage` against a real MinIO: what is made, what is kept of others, what is said when it is refused."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.services import minio, minio_tier, versitygw
from tests.services.build import built
from tests.services.processes import stop
from tests.services.state import Services
from v2td.cli.app import app
from v2td.config import Settings
from v2td.errors import ConfigError, ServiceError
from v2td.ops import storage
from v2td.ops.bucket_rules import fixed_prefix
from v2td.ops.storage import Item

STRANGERS_RULE = {"ID": "audit", "Status": "Enabled", "Filter": {"Prefix": "audit/"}, "Expiration": {"Days": 365}}


@pytest.fixture
async def s3(services: Services) -> AsyncIterator[Any]:
    async with minio.client(services.s3_endpoint, services.s3_access_key, services.s3_secret_key) as client:
        yield client


@pytest.fixture
async def fresh(s3: Any) -> AsyncIterator[str]:
    """The name of a bucket that is not there yet; it goes with the test."""
    name = f"test-{secrets.token_hex(6)}"
    yield name
    if name in {each["Name"] for each in (await s3.list_buckets())["Buckets"]}:
        await s3.delete_bucket(Bucket=name)


def settings(services: Services, output: str, key: str = "{id}", **wanted: Any) -> Settings:
    return Settings.model_validate(
        {
            "s3": {
                "endpoint_url": services.s3_endpoint,
                "access_key": services.s3_access_key,
                "secret_key": services.s3_secret_key,
            },
            "output": {"bucket": output, "key": key, "formats": ["txt"]},
            "storage": wanted,
        }
    )


def announced(services: Services, bucket: str, **wanted: Any) -> dict[str, Any]:
    return {"source_buckets": [bucket], "notify_arn": services.notification_arn, **wanted}


async def test_from_nothing_to_all_as_wanted(services: Services, s3: Any, fresh: str, bucket: str) -> None:
    wanted = settings(
        services, fresh, transcript_days=30, **announced(services, bucket, notify_suffixes=[".wav", ".ogg"])
    )
    events = "; ".join(f"*{each}: s3:ObjectCreated:* to {services.notification_arn}" for each in (".ogg", ".wav"))
    before = await storage.show(wanted)
    assert before == [
        Item(fresh, "bucket", "is there", "is missing"),
        Item(fresh, "lifecycle", "*: deleted after 30 days", "no bucket"),
        Item(bucket, "notifications", events, "none"),
    ]
    assert fresh not in {each["Name"] for each in (await s3.list_buckets())["Buckets"]}
    done = await storage.apply(wanted)
    assert done == [replace(each, found=each.wanted, changed=True) for each in before]
    assert await storage.show(wanted) == [replace(each, changed=False) for each in done]
    assert await storage.apply(wanted) == [replace(each, changed=False) for each in done]
    (rule,) = (await s3.get_bucket_lifecycle_configuration(Bucket=fresh))["Rules"]
    assert (rule["Status"], rule["Expiration"]["Days"]) == ("Enabled", 30)


async def test_what_is_no_longer_wanted_goes(services: Services, s3: Any, bucket: str) -> None:
    await storage.apply(settings(services, bucket, transcript_days=30))
    await storage.apply(settings(services, bucket, transcript_days=9))
    (rule,) = (await s3.get_bucket_lifecycle_configuration(Bucket=bucket))["Rules"]
    assert rule["Expiration"]["Days"] == 9
    _, lifecycle = await storage.apply(settings(services, bucket))
    assert (lifecycle.found, lifecycle.changed) == ("none", True)
    with pytest.raises(s3.exceptions.ClientError, match="NoSuchLifecycleConfiguration"):
        await s3.get_bucket_lifecycle_configuration(Bucket=bucket)


async def test_rules_of_others_stay(services: Services, s3: Any, bucket: str) -> None:
    await s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [STRANGERS_RULE]})
    _, lifecycle = await storage.apply(settings(services, bucket, key="t/{id}", transcript_days=30))
    assert lifecycle.as_wanted
    assert lifecycle.note == "kept as set by others: audit/*: deleted after 365 days"
    there = {each["ID"]: each for each in (await s3.get_bucket_lifecycle_configuration(Bucket=bucket))["Rules"]}
    assert there["audit"]["Expiration"]["Days"] == 365
    assert there["v2td-transcripts"]["Filter"]["Prefix"] == "t/"
    _, lifecycle = await storage.apply(settings(services, bucket))
    assert (lifecycle.found, lifecycle.changed) == ("none", True)
    (left,) = (await s3.get_bucket_lifecycle_configuration(Bucket=bucket))["Rules"]
    assert left["ID"] == "audit"


async def test_notifications_of_others_stay(services: Services, s3: Any, bucket: str, fresh: str) -> None:
    stranger = {
        "Id": "backup",
        "QueueArn": services.notification_arn,
        "Events": ["s3:ObjectRemoved:*"],
        "Filter": {"Key": {"FilterRules": [{"Name": "suffix", "Value": ".bak"}]}},
    }
    await s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [stranger]}
    )
    wanted = settings(services, fresh, **announced(services, bucket, notify_prefix="in/", notify_suffixes=[".wav"]))
    (*_, item) = await storage.apply(wanted)
    assert item.as_wanted
    assert "s3:ObjectRemoved:" in item.note
    there = (await s3.get_bucket_notification_configuration(Bucket=bucket))["QueueConfigurations"]
    assert len(there) == 2


async def test_what_another_tool_announces_already_is_done(services: Services, s3: Any, bucket: str) -> None:
    configuration = {"QueueArn": services.notification_arn, "Events": ["s3:ObjectCreated:*"]}  # as `mc event add` does
    await s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [configuration]}
    )
    (*_, item) = await storage.apply(settings(services, bucket, **announced(services, bucket)))
    assert (item.as_wanted, item.changed, item.wanted) == (True, False, "none")


@pytest.mark.parametrize(
    ("wanted", "what", "trouble"),
    [
        ({"tier": "COLD"}, "lifecycle", "no such tier"),
        ({"notify_arn": "arn:minio:sqs::T9:kafka"}, "notifications", "storage.notify_arn"),
    ],
)
async def test_what_the_server_refuses_is_told_and_the_rest_done(
    services: Services, bucket: str, wanted: dict[str, Any], what: str, trouble: str
) -> None:
    asked = {"transcript_days": 30, **announced(services, bucket, notify_prefix="in/"), **wanted}
    items = {each.what: each for each in await storage.apply(settings(services, bucket, key="t/{id}", **asked))}
    refused = items.pop(what)
    assert trouble in refused.trouble
    assert not refused.as_wanted
    assert all(each.as_wanted for each in items.values())


@pytest.fixture
async def tiered(services: Services, tmp_path: Path) -> AsyncIterator[Services]:
    """A MinIO of the test's own, whose tier COLD is another S3 server."""
    folders = [tmp_path / each for each in ("cold", "minio")]
    for each in folders:
        each.mkdir()
    log = tmp_path / "minio.log"
    server = minio.prepare(
        built("minio"), folders[1], secret_key=secrets.token_hex(16), kafka_bootstrap=services.kafka_bootstrap
    )
    process = minio.launch(server, log=log)
    try:
        await minio.ready(server, process, log=log)
        async with versitygw.running(built("versitygw") / "versitygw", folders[0], 1) as gateways:
            keys = {"access_key": gateways.access_key, "secret_key": gateways.secret_key}
            endpoint = f"http://127.0.0.1:{gateways.ports[0]}"
            async with minio.client(endpoint, **keys) as s3:
                await s3.create_bucket(Bucket="cold")
            await minio_tier.add(server, "COLD", endpoint=endpoint, bucket="cold", **keys)
            yield replace(
                services,
                s3_endpoint=server.endpoint,
                s3_access_key=server.access_key,
                s3_secret_key=server.secret_key,
            )
    finally:
        stop(process)


async def test_transcripts_move_to_a_tier_that_is_there(tiered: Services) -> None:
    """The seed's rule: to COLD after 7 days."""
    wanted = settings(tiered, "v2t-transcripts", tier="COLD")
    bucket, lifecycle = await storage.apply(wanted)
    assert (bucket.found, bucket.changed) == ("is there", True)
    assert (lifecycle.found, lifecycle.changed, lifecycle.trouble) == ("*: to COLD after 7 days", True, "")
    assert not any(each.changed for each in await storage.apply(wanted))
    async with minio.client(tiered.s3_endpoint, tiered.s3_access_key, tiered.s3_secret_key) as s3:
        (rule,) = (await s3.get_bucket_lifecycle_configuration(Bucket="v2t-transcripts"))["Rules"]
    assert rule["Transitions"] == [{"Days": 7, "StorageClass": "COLD"}]
    _, lifecycle = await storage.apply(settings(tiered, "v2t-transcripts", tier="COLD", transcript_days=30))
    assert lifecycle.found == "*: to COLD after 7 days, deleted after 30 days"


async def test_a_missing_source_bucket_is_not_made(services: Services, s3: Any, bucket: str, fresh: str) -> None:
    (*_, item) = await storage.apply(settings(services, bucket, **announced(services, fresh)))
    assert "mend storage.source_buckets" in item.trouble
    assert fresh not in {each["Name"] for each in (await s3.list_buckets())["Buckets"]}


async def test_what_is_written_beside_recordings_is_told(services: Services, bucket: str) -> None:
    wanted = settings(services, bucket, **announced(services, bucket))
    assert "announced, too" in (await storage.show(wanted))[-1].note
    wanted = settings(services, bucket, **announced(services, bucket, notify_suffixes=[".wav"]))
    assert (await storage.show(wanted))[-1].note == ""


@pytest.mark.parametrize("wanted", [{"transcript_days": 30}, {"tier": "COLD"}])
async def test_no_rule_meets_recordings(services: Services, bucket: str, wanted: dict[str, Any]) -> None:
    for key, prefix in (("{id}", ""), ("{id}", "in/"), ("in/{id}", "in/calls/")):
        asked = settings(services, bucket, key=key, **wanted, **announced(services, bucket, notify_prefix=prefix))
        with pytest.raises(ConfigError, match="would meet recordings"):
            await storage.apply(asked)
    asked = settings(services, bucket, **wanted)
    asked = asked.model_copy(update={"s3": asked.s3.model_copy(update={"upload_bucket": bucket})})
    with pytest.raises(ConfigError, match="would meet recordings"):
        await storage.apply(asked)


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        ({"source_buckets": ["calls"]}, "notify_arn"),
        ({"tier": "COLD", "transcript_days": 7}, "more than transition_days"),
        ({"notify_suffixes": [".wav", ".json"]}, "without .json"),
        ({"notify_suffixes": ["n"]}, "without n"),
    ],
)
def test_contradictions_are_told_at_load(wanted: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Settings.model_validate({"storage": wanted})


@pytest.mark.parametrize(
    ("template", "prefix"),
    [("{id}", ""), ("t/{date}/{id}", "t/"), ("all-{id}", "all-"), ("{{x}}/{id}", "{x}/"), ("one", "one")],
)
def test_what_all_keys_begin_with(template: str, prefix: str) -> None:
    assert fixed_prefix(template) == prefix


async def test_nobody_listens(services: Services) -> None:
    asked = settings(services, "v2t-transcripts")
    asked = asked.model_copy(update={"s3": asked.s3.model_copy(update={"endpoint_url": "http://127.0.0.1:1"})})
    with pytest.raises(ServiceError, match="object store: v2t-transcripts"):
        await storage.show(asked)


def test_the_command(services: Services, bucket: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        f'[s3]\nendpoint_url = "{services.s3_endpoint}"\naccess_key = "{services.s3_access_key}"\n'
        f'secret_key = "{services.s3_secret_key}"\n[output]\nbucket = "{bucket}"\n[storage]\ntranscript_days = 30\n'
    )
    config.chmod(0o600)

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["storage", *arguments, "--config", str(config)])

    shown = run("show")
    assert shown.exit_code == 1
    assert f"✗ {bucket}: lifecycle: none\n  wanted: *: deleted after 30 days\n" in shown.output
    applied = run("apply")
    assert (applied.exit_code, applied.output) == (
        0,
        f"✓ {bucket}: bucket: is there\n✓ {bucket}: lifecycle: *: deleted after 30 days (now)\n",
    )
    told = run("show", "--json")
    assert told.exit_code == 0
    assert json.loads(told.output)["as_wanted"] is True
    assert services.s3_secret_key not in shown.output + applied.output + told.output
    refused = run("apply", "--set", "storage.tier=COLD", "--json")
    assert refused.exit_code == 1
    assert "no such tier" in json.loads(refused.output)["items"][1]["trouble"]
    asyncio.run(_away(services, bucket))


async def _away(services: Services, bucket: str) -> None:
    """Nothing of the command is left behind but what was asked for."""
    async with minio.client(services.s3_endpoint, services.s3_access_key, services.s3_secret_key) as s3:
        assert "Contents" not in await s3.list_objects_v2(Bucket=bucket)
