"""What every Kafka client of v2td is told: where the brokers are and how to speak to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    NoError,
    TopicAlreadyExistsError,
    for_code,
)

from v2td.config import KafkaSettings
from v2td.errors import ServiceError
from v2td.intake.refusals import explained
from v2td.intake.tokens import token_provider
from v2td.logs import get_logger
from v2td.tls import show_certificate, verifying

log = get_logger(__name__)

CREATE = "create a topic"  # the operation of a ServiceError that says that this was refused


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return the keyword arguments that aiokafka's consumer, producer and admin client share.

    ServiceError when a certificate or the token provider cannot be used.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "client_id": settings.client_id,
        "request_timeout_ms": int(settings.request_timeout_seconds * 1000),
        "metadata_max_age_ms": int(settings.metadata_max_age_seconds * 1000),
        "security_protocol": settings.security_protocol,
    }
    if settings.security_protocol.endswith("SSL"):
        options["ssl_context"] = context = verifying(settings.ssl_ca_file, "kafka.ssl_ca_file")
        if settings.ssl_client_pem is not None:
            show_certificate(context, settings.ssl_client_pem, "kafka.ssl_client_pem")
    if settings.security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.sasl_mechanism
        if settings.sasl_mechanism == "OAUTHBEARER":
            options["sasl_oauth_token_provider"] = token_provider(settings)
        else:
            password = settings.sasl_password
            options["sasl_plain_username"] = settings.sasl_username
            options["sasl_plain_password"] = password.get_secret_value() if password else None
    return options


@asynccontextmanager
async def admin_client(settings: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Connect an admin client; ServiceError, with the reason, when no broker answers or lets us in."""
    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        with explained(settings, "connect to Kafka"):
            await admin.start()
        yield admin
    except (KafkaConnectionError, NodeNotReadyError) as error:
        servers = ", ".join(settings.bootstrap_servers)
        raise ServiceError("ask Kafka", f"{servers}: {error}", "the brokers went away: are they running?") from error
    finally:
        await admin.close()


async def cluster_id(settings: KafkaSettings) -> str:
    """Return the cluster's own id, which is part of every row key."""
    async with admin_client(settings) as admin:
        description = await admin.describe_cluster()
    return str(description.get("cluster_id") or "")


async def require_topics(settings: KafkaSettings, topics: Sequence[str]) -> None:
    """Raise ServiceError when one of the topics is not there, or not for us to see."""
    async with admin_client(settings) as admin:
        there = await admin.list_topics()
    if missing := [topic for topic in topics if topic not in there]:
        raise ServiceError(
            "look for the topics", f"there is no topic {', '.join(missing)}", "create it, or correct kafka.topics"
        )


async def ensure_topic(settings: KafkaSettings, topic: str) -> None:
    """Create a topic when it is not there; ServiceError when that is refused.

    One partition, since dead letters are few, on up to three brokers.
    """
    async with admin_client(settings) as admin:
        if topic in await admin.list_topics():
            return
        brokers = len((await admin.describe_cluster())["brokers"])
        try:
            answer = await admin.create_topics([NewTopic(topic, 1, min(3, brokers))])
        except KafkaError as error:
            raise ServiceError(CREATE, f"{topic}: {error}", "create it by hand") from error
    for name, code, *message in answer.topic_errors:
        error_type = for_code(code)
        if error_type not in (NoError, TopicAlreadyExistsError):
            raise ServiceError(CREATE, f"{name}: {message or error_type.__name__}", "create it by hand")
    log.info("topic created", topic=topic)


def group_member(settings: KafkaSettings, fetch_bytes: int) -> AIOKafkaConsumer:
    """Return a member of the group that commits nothing by itself, and fetches so much of a partition at a time."""
    return AIOKafkaConsumer(
        **client_options(settings),
        group_id=settings.group_id,
        group_instance_id=settings.group_instance_id,
        enable_auto_commit=False,
        auto_offset_reset="earliest",  # the default, latest, skips what came before the first commit
        isolation_level="read_committed",  # the default delivers aborted records
        session_timeout_ms=int(settings.session_timeout_seconds * 1000),
        heartbeat_interval_ms=int(settings.session_timeout_seconds * 1000 / 3),
        rebalance_timeout_ms=int(settings.rebalance_timeout_seconds * 1000),
        max_poll_interval_ms=int(settings.max_poll_interval_seconds * 1000),
        max_partition_fetch_bytes=fetch_bytes,
        fetch_max_wait_ms=int(settings.fetch_max_wait_seconds * 1000),
    )
