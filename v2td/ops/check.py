"""`v2td check`: does everything that the daemon needs answer, and as it should?"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code
from pydantic import SecretStr

from v2td import bundled, jail, store, tracing
from v2td.child import Child
from v2td.config import DatabaseSettings, KafkaSettings, S3Settings, Settings
from v2td.engine import Plan, find_model, plan, plan_slots, read_machine
from v2td.errors import ConfigError, JobError, ServiceError, first_of
from v2td.fetch import Downloader, ObjectStore
from v2td.intake import admin_client, client_options, explained
from v2td.jobs import Options
from v2td.ops import storage, webhooks
from v2td.ops.transcribe import Transcriber
from v2td.providers import registry
from v2td.providers.member import opened, trouble_of
from v2td.results import check_redis

SERVICE_SECONDS = 15.0  # longest wait for a service to answer
RETRY_SECONDS = 0.2
CLIP = "en-01.flac"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, and what was found; `hint` says what a person can do."""

    name: str
    ok: bool
    detail: str
    hint: str = ""


T = TypeVar("T")
Checker = Callable[[Settings], Awaitable[list[Check]]]


def checkers(settings: Settings, *, offline: bool) -> dict[str, Checker]:
    """Return what is to be checked, by name, the quick ones first."""
    chosen: dict[str, Checker] = {"spool": _spool, "decoder jail": _jail}
    if not offline:
        chosen |= {"kafka": _kafka, "postgres": _postgres}
        if settings.database.read_dsn is not None:
            chosen["postgres replica"] = _replica
        if _s3_configured(settings.s3):
            chosen["s3"] = _s3
        if settings.output.formats:
            chosen["bucket of transcripts"] = _output
        if settings.cache.results and settings.cache.redis_url is not None:
            chosen["redis"] = _redis
        if settings.webhooks.url is not None:
            chosen["webhooks"] = _webhooks
        if settings.tracing.enabled:
            chosen["tracing"] = _tracing
        if settings.providers.all:
            chosen["providers"] = _providers
    return chosen | {"model": _model}


async def run(name: str, checker: Checker, settings: Settings) -> list[Check]:
    """Return what the checker found; what it could not do is a failed check."""
    limit = SERVICE_SECONDS + (settings.engine.load_seconds if checker is _model else 0)
    found: list[Check] = []
    try:
        async with asyncio.timeout(limit):
            found = await checker(settings)
    except* (ServiceError, JobError) as group:
        found = [_failed(name, first_of(group))]
    except* TimeoutError:
        found = [Check(name, False, f"no answer within {limit:g} s", "does something in between drop packets?")]
    return found


def _failed(name: str, error: BaseException) -> Check:
    if isinstance(error, ConfigError):
        return Check(name, False, f"{error.field} = {error.value}", error.hint)
    if isinstance(error, ServiceError):
        return Check(name, False, f"{error.operation}: {error.detail}", error.hint)
    return Check(name, False, str(error))


def slot_plan(settings: Settings) -> Plan:
    """Return the slots that the daemon would run on this machine; ConfigError when the settings do not fit it.

    Without the model, which is a check of its own, memory bounds nothing.
    """
    try:
        model = find_model(settings.engine)
    except ServiceError:
        return plan(read_machine(), settings.engine)
    return plan_slots(settings.engine, model)[0]


async def _spool(settings: Settings) -> list[Check]:
    async with Downloader(settings.fetch, settings.s3):
        return [Check("spool", True, "downloads have a folder to wait in")]


async def _jail(settings: Settings) -> list[Check]:
    """Lock a child in as a decoder is, and have it try to get out."""
    name, speech = "decoder jail", settings.speech
    limits = (
        f"at most {speech.decoder_memory_bytes / 1e9:.1f} GB of memory, {speech.decoder_cpu_seconds:g} s of CPU time "
        f"for a piece, {speech.decoder_files} files, no core file"
    )
    if speech.jail == "off":
        return [Check(name, True, f"off, a decoder may do what v2td may; {limits}", "speech.jail is off")]
    found = jail.means()
    with tempfile.TemporaryDirectory(prefix="v2td-check-") as folder:
        outside = Path(folder) / "secret"
        outside.write_bytes(b"")
        async with Child("trial", jail.breaches, (outside,), confine=jail.Jail((), (), found).enter) as trial:
            breaches: tuple[str, ...] = trial.set_up
    if not breaches:
        told = f"seccomp and Landlock (ABI {found.landlock_abi}): no network, no programs, no files but recordings"
        return [Check(name, True, f"{told}; {limits}")]
    hint = "; ".join(f"this machine lacks {each}" for each in found.missing)
    return [Check(name, speech.jail == "available", f"a decoder could {', '.join(breaches)}; {limits}", hint)]


async def _kafka(settings: Settings) -> list[Check]:
    kafka = settings.kafka
    with explained(kafka, "connect to Kafka", quiet=True):
        async with admin_client(kafka) as admin:
            cluster = await admin.describe_cluster()
            topics = {topic["topic"]: topic for topic in await admin.describe_topics()}
            found = [Check("kafka", True, f"cluster {cluster['cluster_id']}, brokers: {len(cluster['brokers'])}")]
            found += [_topic(name, topics) for name in kafka.topics]
            found.append(_ours("kafka dead letters", kafka.dead_letter_topic, topics))
            if kafka.results_topic is not None:
                found.append(_ours("kafka results", kafka.results_topic, topics))
            partitions = [
                TopicPartition(name, each["partition"])
                for name in kafka.topics
                if name in topics
                for each in topics[name]["partitions"]
            ]
            found.append(await _group(admin, kafka, partitions))
    return found


def _topic(name: str, topics: dict[str, Any]) -> Check:
    if name in topics:
        return Check("kafka topic", True, f"{name} has {len(topics[name]['partitions'])} partitions")
    hint = "create it, or grant Describe on it to the user; kafka.topics names it"
    return Check("kafka topic", False, f"there is no topic {name}", hint)


def _ours(what: str, name: str, topics: dict[str, Any]) -> Check:
    there = "is there" if name in topics else "is not there yet; the daemon creates it when it starts, if it may"
    return Check(what, True, f"{name} {there}")


async def _group(admin: AIOKafkaAdminClient, settings: KafkaSettings, partitions: list[TopicPartition]) -> Check:
    """Say who is in the group, and how many records it has not committed."""
    group = settings.group_id
    try:
        (response,) = await _when_ready(lambda: admin.describe_consumer_groups([group]))
        described = response.to_object()["groups"][0]
        if described["error_code"]:
            raise for_code(described["error_code"])(group)
        committed = {
            partition: offset.offset
            for partition, offset in (await admin.list_consumer_group_offsets(group)).items()
            if offset.offset >= 0
        }
        # aiokafka's consumer must not be stopped before it has done anything.
        first, end = await _bounds(settings, partitions) if partitions else ({}, {})
    except KafkaError as error:
        hint = "grant Read on the group and on the topics to the user"
        return Check("kafka group", False, f"{group}: {type(error).__name__}: {error}", hint)
    lag = sum(max(0, end[each] - max(first[each], committed.get(each, 0))) for each in partitions)
    told = f"{group} has {len(described['members'])} members, {lag} records wait"
    if not any(each in committed for each in partitions):
        told += "; nothing is committed yet, so it starts with the earliest record"
    return Check("kafka group", True, told)


async def _when_ready(request: Callable[[], Awaitable[T]]) -> T:
    """Ask again while the broker says that it is not ready: a fresh cluster makes its offsets topic at first use."""
    while True:
        try:
            return await request()
        except KafkaError as error:
            if not error.retriable:
                raise
        await asyncio.sleep(RETRY_SECONDS)


async def _bounds(
    settings: KafkaSettings, partitions: Sequence[TopicPartition]
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    """Return the first offset that each partition still has, and the one behind its last."""
    consumer = AIOKafkaConsumer(**client_options(settings))
    try:
        await consumer.start()
        return await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
    finally:
        await consumer.stop()


async def _postgres(settings: Settings) -> list[Check]:
    return [await _schema("postgres", settings.database.dsn, settings.database)]


async def _replica(settings: Settings) -> list[Check]:
    database = settings.database
    return [await _schema("postgres replica", database.read_dsn or database.dsn, database)]


async def _schema(name: str, dsn: SecretStr, settings: DatabaseSettings) -> Check:
    version = await store.schema_version(dsn.get_secret_value())
    latest = store.latest_version()
    told = f"the schema has version {version}, this v2td works with {latest}"
    if version > latest:
        return Check(name, False, told, "install the newer v2td")
    if version < latest and not settings.migrate_on_start:
        return Check(name, False, told, "run `v2td db upgrade`")
    return Check(name, True, told + ("" if version == latest else "; the daemon upgrades it when it starts"))


async def _s3(settings: Settings) -> list[Check]:
    async with ObjectStore(settings.s3) as objects:
        return [Check("s3", True, await objects.check())]


async def _redis(settings: Settings) -> list[Check]:
    return [Check("redis", True, await check_redis(settings.cache))]


async def _webhooks(settings: Settings) -> list[Check]:
    return [Check("webhooks", True, await webhooks.reach(settings))]


async def _tracing(settings: Settings) -> list[Check]:
    return [Check("tracing", True, await tracing.check(settings.tracing))]


async def _providers(settings: Settings) -> list[Check]:
    """Open each provider that is configured, and ask whether it is well."""
    found = []
    for table, provider in registry.make(settings.providers):
        name = f"provider {table.name}"
        try:
            async with opened(provider):
                trouble = await trouble_of(provider)
        except ServiceError as error:
            found.append(_failed(name, error))
        else:
            told = trouble or f"is well; model {provider.model or 'of its own choice'}"
            found.append(Check(name, trouble is None, told))
    return found


async def _output(settings: Settings) -> list[Check]:
    """Say whether the bucket that files go to is there; rules of its lifecycle are nothing to fail for."""
    bucket = (await storage.show(settings))[0]
    hint = "" if bucket.as_wanted else bucket.trouble or "`v2td storage apply` makes it"
    return [Check("bucket of transcripts", bucket.as_wanted, f"{bucket.bucket} {bucket.found}", hint)]


def _s3_configured(settings: S3Settings) -> bool:
    return any(
        (settings.endpoint_url, settings.access_key, settings.upload_bucket, settings.allowed_buckets, settings.stores)
    )


async def _model(settings: Settings) -> list[Check]:
    """Load the model as a slot does, and let it hear a bundled recording."""
    clip = next(recording for recording in bundled.recordings() if recording.name == CLIP)
    start = time.monotonic()
    async with Transcriber(settings, [clip.path], slots=1) as transcriber:
        loaded = time.monotonic()
        document = await transcriber.transcribe(clip.path, Options(language=clip.language))
        seconds = time.monotonic() - loaded
    text = " ".join(segment.text.strip() for segment in document.segments)
    return [
        Check(
            "model",
            True,
            f"{settings.engine.model} on {settings.engine.device} was ready after {loaded - start:.1f} s and heard "
            f"“{text}” in {seconds:.1f} s ({clip.seconds / seconds:.1f} times real time)",
        )
    ]
