from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.conftest import MakeTopic
from tests.services import redis as service
from tests.services.state import Services
from v2td import store
from v2td.config import Settings
from v2td.errors import ConfigError
from v2td.jail import means
from v2td.ops.check import Check, checkers, run, slot_plan

SECRET = "hunter2-hunter2"


def settings(**sections: dict[str, Any]) -> Settings:
    return Settings.model_validate({"engine": {"model": "demo", "slots": 1}, **sections})


async def only(name: str, given: Settings) -> dict[str, Check]:
    """What one of the checkers finds, by name; no secret is among it."""
    found = await run(name, checkers(given, offline=False)[name], given)
    assert SECRET not in str(found)
    return {check.name: check for check in found}


@pytest.fixture
async def kafka(services: Services, topic: MakeTopic) -> dict[str, Any]:
    """A section under which all is well."""
    return {
        "bootstrap_servers": [services.kafka_bootstrap],
        "topics": [await topic(partitions=2, name="jobs")],
        "group_id": await topic(name="group"),
    }


def test_offline_asks_no_service() -> None:
    cache = {"results": True, "redis_url": "redis://127.0.0.1:1"}
    given = settings(
        s3={"endpoint_url": "http://127.0.0.1:1"}, database={"read_dsn": "postgresql://127.0.0.1:1/x"}, cache=cache
    )
    assert list(checkers(given, offline=True)) == ["spool", "decoder jail", "model"]
    assert list(checkers(given, offline=False)) == [
        "spool",
        "decoder jail",
        "kafka",
        "postgres",
        "postgres replica",
        "s3",
        "redis",
        "model",
    ]
    api = {"name": "api", "base_url": "http://127.0.0.1:1/v1"}
    assert "providers" in checkers(settings(providers={"openai": [api]}), offline=False)
    unused = settings(cache=cache | {"results": False})
    assert "redis" not in checkers(unused, offline=False)
    assert list(checkers(settings(), offline=False)) == ["spool", "decoder jail", "kafka", "postgres", "model"]


async def test_bucket_of_transcripts(services: Services, bucket: str) -> None:
    keys = {"access_key": services.s3_access_key, "secret_key": services.s3_secret_key}
    s3 = {"endpoint_url": services.s3_endpoint, **keys}
    name = "bucket of transcripts"
    assert name not in checkers(settings(s3=s3), offline=False)
    good = await only(name, settings(s3=s3, output={"bucket": bucket, "formats": ["srt"]}))
    assert (good[name].ok, good[name].detail, good[name].hint) == (True, f"{bucket} is there", "")
    bad = await only(name, settings(s3=s3, output={"bucket": "v2t-not-made", "formats": ["srt"]}))
    assert (bad[name].ok, bad[name].detail) == (False, "v2t-not-made is missing")
    assert "v2td storage apply" in bad[name].hint
    away = await only(name, settings(s3=s3 | {"secret_key": SECRET}, output={"bucket": bucket, "formats": ["srt"]}))
    assert not away[name].ok


async def test_lag(kafka: dict[str, Any], services: Services) -> None:
    partition = TopicPartition(kafka["topics"][0], 1)
    async with AIOKafkaProducer(bootstrap_servers=services.kafka_bootstrap) as producer:
        for _ in range(5):
            await producer.send_and_wait(partition.topic, b"{}", partition=partition.partition)
    found = await only("kafka", settings(kafka=kafka))
    assert found["kafka topic"].detail == f"{partition.topic} has 2 partitions"
    assert "has 0 members, 5 records wait; nothing is committed yet" in found["kafka group"].detail
    async with AIOKafkaConsumer(
        partition.topic,
        bootstrap_servers=services.kafka_bootstrap,
        group_id=kafka["group_id"],
        enable_auto_commit=False,
    ) as consumer:
        await consumer.commit({partition: 3})
        found = await only("kafka", settings(kafka=kafka))
    assert found["kafka group"].detail == f"{kafka['group_id']} has 1 members, 2 records wait"
    assert all(check.ok for check in found.values())


async def test_topic_is_missing(kafka: dict[str, Any]) -> None:
    found = await only("kafka", settings(kafka=kafka | {"topics": ["v2td-absent"]}))
    assert not found["kafka topic"].ok
    assert found["kafka topic"].detail == "there is no topic v2td-absent"
    assert found["kafka"].ok
    assert found["kafka group"].ok


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"bootstrap_servers": ["127.0.0.1:1"]}, "no broker at 127.0.0.1:1: ConnectionRefusedError"),
        ({"bootstrap_servers": ["absent.invalid:9092"]}, "no broker at absent.invalid:9092: gaierror"),
        (
            {"security_protocol": "SASL_PLAINTEXT", "sasl_username": "v2td", "sasl_password": SECRET},
            "does not offer SCRAM-SHA-512 over SASL_PLAINTEXT",
        ),
        ({"security_protocol": "SSL"}, "ConnectionResetError"),
        ({"security_protocol": "SSL", "ssl_ca_file": Path("/absent")}, "/absent: No such file or directory"),
    ],
)
async def test_kafka_does_not_let_us_in(kafka: dict[str, Any], more: dict[str, Any], told: str) -> None:
    (check,) = (await only("kafka", settings(kafka=kafka | more))).values()
    assert not check.ok
    assert check.detail.startswith(("connect to Kafka: ", "set up TLS: "))
    assert told in check.detail
    assert "kafka." in check.hint


async def test_postgres_refuses_the_password(database: str) -> None:
    user, _, server = database.rpartition("@")
    wrong = f"{user.rpartition(':')[0]}:{SECRET}@{server}"
    (check,) = (await only("postgres", settings(database={"dsn": wrong}))).values()
    assert not check.ok
    assert "28P01" in check.detail
    assert "check the user and the password" in check.hint


async def test_postgres_schema(database: str) -> None:
    by_hand = settings(database={"dsn": database, "migrate_on_start": False})
    by_itself = settings(database={"dsn": database})
    check = (await only("postgres", by_hand))["postgres"]
    assert (check.ok, check.hint) == (False, "run `v2td db upgrade`")
    check = (await only("postgres", by_itself))["postgres"]
    assert check.ok
    assert "upgrades it when it starts" in check.detail
    await store.upgrade(database)
    assert (await only("postgres", by_hand))["postgres"].ok


async def test_the_replica_is_asked_too(database: str) -> None:
    given = settings(database={"dsn": database, "read_dsn": f"postgresql://v2td:{SECRET}@127.0.0.1:1/v2td"})
    assert (await only("postgres", given))["postgres"].ok
    assert not (await only("postgres replica", given))["postgres replica"].ok


async def test_s3(services: Services, bucket: str) -> None:
    s3 = {"endpoint_url": services.s3_endpoint, "access_key": services.s3_access_key, "upload_bucket": bucket}
    good = await only("s3", settings(s3=s3 | {"secret_key": services.s3_secret_key}))
    assert good["s3"].ok
    assert bucket in good["s3"].detail
    bad = await only("s3", settings(s3=s3 | {"secret_key": SECRET}))
    assert not bad["s3"].ok
    assert "s3" in bad["s3"].hint


@pytest.mark.parametrize(
    ("name", "section", "told", "hint"),
    [
        ("spool", {"fetch": {"spool_dir": Path("/proc/spool")}}, "spool: /proc/spool", "fetch.spool_dir"),
        ("model", {"engine": {"model": "nothing"}}, "engine.model = nothing", "v2td model pull nothing"),
        ("model", {"speech": {"pcm_dir": Path("/proc/pcm")}}, "/proc/pcm", "speech.pcm_dir"),
    ],
)
async def test_what_is_wrong_here(name: str, section: dict[str, Any], told: str, hint: str) -> None:
    (check,) = (await only(name, settings(**section))).values()
    assert not check.ok
    assert told in check.detail
    assert hint in check.hint


async def test_the_decoder_jail_is_tried() -> None:
    check = (await only("decoder jail", settings()))["decoder jail"]
    assert check.ok
    assert check.detail.startswith("seccomp and Landlock (ABI ")
    assert "2.1 GB of memory, 60 s of CPU time for a piece, 4096 files" in check.detail
    off = (await only("decoder jail", settings(speech={"jail": "off"})))["decoder jail"]
    assert off.ok
    assert off.detail.startswith("off")


@pytest.mark.parametrize(("jail", "ok"), [("available", True), ("required", False)])
async def test_what_a_machine_lacks_for_the_decoder_jail(monkeypatch: pytest.MonkeyPatch, jail: str, ok: bool) -> None:
    without = replace(means(), seccomp=False)
    monkeypatch.setattr("v2td.jail.means", lambda: without)
    check = (await only("decoder jail", settings(speech={"jail": jail})))["decoder jail"]
    assert check.ok is ok
    assert "a decoder could send over UDP, open a Unix socket" in check.detail
    assert "install libseccomp2" in check.hint


async def test_the_model_hears_a_bundled_recording() -> None:
    check = (await only("model", settings()))["model"]
    assert check.ok
    assert "“The train to Hanoi leaves at three twenty five.”" in check.detail


def test_the_plan_of_slots() -> None:
    layout = slot_plan(settings())
    assert len(layout.slots) == 1
    assert any(reason.startswith("a copy of the model takes up to 0.") for reason in layout.reasons)
    without_model = slot_plan(settings(engine={"model": "nothing", "slots": 3}))
    assert len(without_model.slots) == 3
    assert not any("a copy of the model" in reason for reason in without_model.reasons)
    with pytest.raises(ConfigError, match=r"^engine\.cpus = \[1023\]: CPU 1023 is not one of"):
        slot_plan(settings(engine={"model": "demo", "cpus": [1023]}))


async def test_redis(tmp_path: Path) -> None:
    async with service.running(tmp_path) as server:
        cache = {"results": True, "redis_url": server.url}
        found = await only("redis", settings(cache=cache))
        assert found["redis"].ok
        assert found["redis"].detail.startswith("Redis ")
        assert "for 86400 s; no bound on its memory" in found["redis"].detail
        async with server.client() as client:
            assert await client.dbsize() == 0
            await client.config_set("maxmemory", "100mb")
            await client.config_set("maxmemory-policy", "allkeys-lru")
        found = await only("redis", settings(cache=cache))
        assert found["redis"].detail.endswith("; 105 MB, allkeys-lru")
        wrong = server.url.replace(server.password, SECRET)
        found = await only("redis", settings(cache=cache | {"redis_url": wrong}))
        assert not found["redis"].ok
        assert "invalid username-password pair" in found["redis"].detail
        server.freeze()
        found = await only("redis", settings(cache=cache))
        assert not found["redis"].ok
        assert "cache.redis_timeout_seconds" in found["redis"].hint
    found = await only("redis", settings(cache=cache | {"redis_url": f"http://x:{SECRET}@y"}))
    assert not found["redis"].ok
    assert "redis://" in found["redis"].hint


async def test_providers_that_are_away_are_told_by_name() -> None:
    api = {"name": "far", "base_url": "http://127.0.0.1:1/v1", "api_key": SECRET}
    found = await only("providers", settings(providers={"openai": [api, api | {"name": "farther"}]}))
    assert [check.ok for check in found.values()] == [False, False]
    assert list(found) == ["provider far", "provider farther"]
