import ssl

import pytest
from pydantic import SecretStr

from tests.intake.conftest import MakeSettings
from v2td.config import KafkaSettings
from v2td.errors import ServiceError
from v2td.intake import admin_client, client_options, cluster_id, ensure_topic


async def test_the_cluster_has_an_id_that_stays(settings_for: MakeSettings) -> None:
    settings = settings_for()
    first = await cluster_id(settings)
    assert first
    assert await cluster_id(settings) == first


async def test_a_missing_broker_is_named_with_what_to_check(settings_for: MakeSettings) -> None:
    with pytest.raises(ServiceError, match=r"no broker at 127\.0\.0\.1:1") as caught:
        async with admin_client(settings_for(bootstrap_servers=["127.0.0.1:1"])):
            pytest.fail("it did connect")
    assert "bootstrap_servers" in caught.value.hint


async def test_a_broker_that_does_not_speak_tls_is_our_fault(settings_for: MakeSettings) -> None:
    with pytest.raises(ServiceError, match="connect to Kafka"):
        await cluster_id(settings_for(security_protocol="SSL", request_timeout_seconds=2))


async def test_a_topic_that_cannot_be_made_says_why(settings_for: MakeSettings) -> None:
    with pytest.raises(ServiceError, match="create a topic"):
        await ensure_topic(settings_for(), "..")


def test_clients_are_told_how_to_speak() -> None:
    plain = client_options(KafkaSettings(bootstrap_servers=("one:9092", "two:9092")))
    assert plain["bootstrap_servers"] == ["one:9092", "two:9092"]
    assert plain["metadata_max_age_ms"] == 30_000
    assert "ssl_context" not in plain
    assert "sasl_mechanism" not in plain
    secure = client_options(
        KafkaSettings(
            security_protocol="SASL_SSL",
            sasl_mechanism="SCRAM-SHA-256",
            sasl_username="me",
            sasl_password=SecretStr("secret"),
        )
    )
    assert isinstance(secure["ssl_context"], ssl.SSLContext)
    assert secure["ssl_context"].verify_mode is ssl.CERT_REQUIRED
    assert secure["sasl_mechanism"] == "SCRAM-SHA-256"
    assert (secure["sasl_plain_username"], secure["sasl_plain_password"]) == ("me", "secret")
