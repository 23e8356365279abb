"""Which topic a name stands for: a topic that is deleted and created again has a new id, and reuses offsets.

Each commit carries the id of its topic as metadata. A committed offset of another topic of the same name says nothing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from io import BytesIO
from typing import Self
from uuid import UUID

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, NoError, for_code
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from v2td.config import KafkaSettings
from v2td.errors import ServiceError
from v2td.intake.connection import client_options
from v2td.intake.offsets import Partition
from v2td.logs import get_logger

log = get_logger(__name__)

_NO_ID = UUID(int=0)
_NO_TAGS: dict[int, bytes] = {}
_METADATA = re.compile(r"topic_id=([0-9a-f-]{36})")


def to_metadata(topic_id: UUID | None) -> str:
    """Return what a commit says about the topic it means."""
    return "" if topic_id is None else f"topic_id={topic_id}"


def from_metadata(metadata: str | None) -> UUID | None:
    """Return the topic's id; None for the commit of another tool, or of an operator."""
    found = _METADATA.fullmatch(metadata or "")
    return UUID(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class Commit:
    """What the group committed of a partition: None when nothing, and when the commit does not name its topic."""

    offset: int | None
    topic_id: UUID | None


class TopicIds:
    """Asks the brokers, over a connection of its own, which topics the names stand for; an async context manager.

    All methods raise KafkaError.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._group = settings.group_id
        self._client = AIOKafkaClient(**client_options(settings))
        self._supported = True

    async def __aenter__(self) -> Self:
        try:
            await self._client.bootstrap()
        except KafkaError as error:
            await self._client.close()
            raise ServiceError("connect to Kafka", str(error), "see kafka.* in the config") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def current(self, topics: Collection[str]) -> dict[str, UUID | None]:
        """Return the ids of those topics that are there now; None when the brokers give them no ids."""
        if not (self._supported and topics):
            return dict.fromkeys(topics)
        try:
            answer = await self._client.send(self._client.get_random_node(), _TopicsRequest(topics))
        except (NotImplementedError, IncompatibleBrokerVersion):
            log.warning("the brokers give topics no ids: one that is created anew is not told from the old one")
            self._supported = False
            return dict.fromkeys(topics)
        return {
            name: None if topic_id == _NO_ID else topic_id for code, name, topic_id, *_ in answer.topics if not code
        }

    async def of_commits(self, partitions: Collection[Partition]) -> dict[Partition, Commit]:
        """Return what the group committed, of those partitions for which the brokers can tell."""
        if not partitions:
            return {}
        by_topic: defaultdict[str, list[int]] = defaultdict(list)
        for topic, partition in partitions:
            by_topic[topic].append(partition)
        coordinator = await self._client.coordinator_lookup(CoordinationType.GROUP, self._group)
        request = OffsetFetchRequest(self._group, list(by_topic.items()))
        answer = await self._client.send(coordinator, request, group=ConnectionGroup.COORDINATION)
        if (error := for_code(answer.error_code)) is not NoError:
            raise error(self._group)
        return {
            Partition(topic, partition): Commit(None if offset < 0 else offset, from_metadata(metadata))
            for topic, found in answer.topics
            for partition, offset, metadata, code in found
            if not code
        }


class _Uuid(AbstractType[UUID]):  # type: ignore[misc]  # aiokafka has no types
    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(16))


class _TopicsResponse(Response):  # type: ignore[misc]  # aiokafka has no types
    """Metadata, version 10: the first with topic ids."""

    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _TopicsRequestStruct(RequestStruct):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 3
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _TopicsResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("topic", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _TopicsRequest(Request[_TopicsRequestStruct]):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 3

    def __init__(self, topics: Collection[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_TopicsRequestStruct]) -> _TopicsRequestStruct:
        topics = [(_NO_ID, topic, _NO_TAGS) for topic in self._topics]
        return request_struct_class(topics, False, False, False, _NO_TAGS)
