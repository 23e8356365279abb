"""What tests may ask for: the running services, and a database, topics and a bucket of their own.

A test that uses any of these is marked ``services`` by itself.  When the services are not there the test fails, it is
never skipped: a green run has seen the real ones.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete

from tests.services import minio, stack, state
from tests.services.state import Services

CURE = "start them with: make services-up"

MakeTopic = Callable[..., Awaitable[str]]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "services" in fixtures:
            item.add_marker("services")
        # A file's tests share its fixtures, so they stay in one worker; there is only one topic of notifications.
        group = "notifications" if "notifying_bucket" in fixtures else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def services() -> Services:
    """The services that run, each of them asked once per session whether it answers."""
    file = state.file_in_use()
    running = state.read(file)
    if running is None or running.services is None:
        pytest.fail(f"the test services are not up (no state in {file}); {CURE}", pytrace=False)
    silent = asyncio.run(stack.unanswered(running.services))
    if silent:
        errors = "; ".join(f"{name}: {error}" for name, error in silent.items())
        pytest.fail(f"the test services do not answer ({errors}); {CURE}", pytrace=False)
    return running.services


@pytest.fixture
async def database(services: Services) -> AsyncIterator[str]:
    """The DSN of an empty database, dropped after the test even if something is still connected to it."""
    name = f"test_{secrets.token_hex(6)}"
    server = await asyncpg.connect(services.postgres_dsn)
    try:
        await server.execute(f'CREATE DATABASE "{name}"')
        yield services.postgres_dsn.removesuffix("/postgres") + f"/{name}"
        await server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await server.close()


@pytest.fixture
async def topic(services: Services) -> AsyncIterator[MakeTopic]:
    """``await topic(partitions=1, name="jobs")`` creates a topic and returns its unique name; it goes with the test."""
    created: list[str] = []
    admin = AIOKafkaAdminClient(bootstrap_servers=services.kafka_bootstrap)
    await admin.start()

    async def make(partitions: int = 1, name: str = "topic") -> str:
        unique = f"{name}-{secrets.token_hex(6)}"
        await admin.create_topics([NewTopic(unique, partitions, 1)])
        created.append(unique)
        return unique

    try:
        yield make
        if created:
            await admin.delete_topics(created)
    finally:
        await admin.close()


@pytest.fixture
async def bucket(services: Services) -> AsyncIterator[str]:
    """The name of an empty bucket in MinIO, removed after the test with all that it holds."""
    async with minio.bucket(services, "test") as name:
        yield name


@pytest.fixture
async def notifying_bucket(services: Services, bucket: str) -> str:
    """A bucket whose new objects are announced in the topic ``services.notification_topic``.

    That topic is one for all tests, because MinIO is told its topics before it starts; its earlier records are
    deleted here, so that a consumer group that starts from the earliest record sees none of another test's.
    """
    await _empty_topic(services.kafka_bootstrap, services.notification_topic)
    events = {"QueueConfigurations": [{"QueueArn": services.notification_arn, "Events": ["s3:ObjectCreated:*"]}]}
    async with minio.client(services.s3_endpoint, services.s3_access_key, services.s3_secret_key) as s3:
        await s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=events)
    return bucket


async def _empty_topic(bootstrap: str, name: str) -> None:
    """Deletes all records of the one partition of ``name``."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        # -1 is the protocol's word for: up to the end.
        await admin.delete_records({TopicPartition(name, 0): RecordsToDelete(before_offset=-1)})
    finally:
        await admin.close()
