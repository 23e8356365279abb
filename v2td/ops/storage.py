"""Buckets as the config wants them: looked at, and brought there without touching what others set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError

from v2td.config import Settings
from v2td.errors import ConfigError, ServiceError
from v2td.fetch import ObjectStore
from v2td.ops import bucket_rules as rules

NONE = "none"
IS_THERE = "is there"
OURS_COME_BACK = (
    "files of transcripts in this bucket are announced, too: MinIO marks them and they are skipped, elsewhere set "
    "storage.notify_suffixes"
)
_HINTS = {
    "InvalidStorageClass": "the server has no such tier: make it (MinIO: `mc admin tier add`), or change storage.tier",
    "AccessDenied": "the credentials may not do this",
    "NotImplemented": "this server does not have it",
    "MethodNotAllowed": "this server does not have it",
    "NoSuchBucket": "make it, or mend storage.source_buckets",
    "InvalidArgument": "does the server have this target? see storage.notify_arn; on MinIO: `mc admin info`",
}


@dataclass(frozen=True, slots=True)
class Item:
    """One thing about one bucket, in words: `trouble` is why it could not be brought to what is wanted."""

    bucket: str
    what: str  # bucket | lifecycle | notifications
    wanted: str
    found: str
    changed: bool = False
    trouble: str = ""
    note: str = ""

    @property
    def as_wanted(self) -> bool:
        """Whether nothing is left to do."""
        return self.found == self.wanted and not self.trouble


async def show(settings: Settings) -> list[Item]:
    """Return what is and what is wanted; changes nothing. Raises ConfigError, ServiceError."""
    return await _each(settings, apply=False)


async def apply(settings: Settings) -> list[Item]:
    """Bring buckets to what is wanted and return what they are then; doing it again changes nothing.

    What a server refuses is that item's trouble, and the others are done. Raises ConfigError, ServiceError.
    """
    return await _each(settings, apply=True)


async def _each(settings: Settings, *, apply: bool) -> list[Item]:
    _check(settings)
    output = settings.output.bucket
    items = []
    async with ObjectStore(settings.s3) as store:
        client = await store.client(output)
        with _explained(output):
            items.append(await _bucket(client, output, apply=apply))
            lifecycle = rules.lifecycle_rules(settings.storage, rules.fixed_prefix(settings.output.key))
            items.append(await _attempted(_Lifecycle(client, output), lifecycle, apply=apply))
        comes_back = not settings.storage.notify_suffixes
        for name in settings.storage.source_buckets:
            client = await store.client(name)
            with _explained(name):
                item = await _attempted(_Events(client, name), rules.notifications(settings.storage), apply=apply)
            ours_lie_here = name == output or (settings.output.where == "source" and settings.output.formats)
            items.append(replace(item, note=OURS_COME_BACK) if comes_back and ours_lie_here else item)
    return items


def _check(settings: Settings) -> None:
    """Refuse rules that would delete or move recordings."""
    storage, bucket = settings.storage, settings.output.bucket
    if storage.transcript_days is None and storage.tier is None:
        return
    prefix = rules.fixed_prefix(settings.output.key)
    uploads = bucket == settings.s3.upload_bucket and not prefix
    if uploads or (bucket in storage.source_buckets and storage.notify_prefix.startswith(prefix)):
        key = "storage.tier" if storage.transcript_days is None else "storage.transcript_days"
        raise ConfigError(
            key,
            str(storage.tier if storage.transcript_days is None else storage.transcript_days),
            f"would meet recordings in {bucket}, too: let output.key begin with a folder of its own, or use another "
            "output.bucket",
        )


async def _bucket(client: Any, bucket: str, *, apply: bool) -> Item:
    item = Item(bucket, "bucket", IS_THERE, IS_THERE)
    try:
        await client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if _status(error) != 404:
            return replace(item, found="not shown", trouble=_told(error))
    else:
        return item
    if not apply:
        return replace(item, found="is missing")
    region = client.meta.region_name
    # AWS wants to be told any region but its first.
    where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        await client.create_bucket(Bucket=bucket, **where)
    except ClientError as error:
        if _code(error) != "BucketAlreadyOwnedByYou":  # somebody else was faster
            return replace(item, found="is missing", trouble=_told(error))
    return replace(item, changed=True)


class _Lifecycle:
    """Lifecycle rules of a bucket."""

    what = "lifecycle"
    in_words = staticmethod(rules.lifecycle_in_words)

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self.bucket = bucket

    async def read(self) -> list[rules.Rule]:
        try:
            found = await self._client.get_bucket_lifecycle_configuration(Bucket=self.bucket)
        except ClientError as error:
            if _code(error) != "NoSuchLifecycleConfiguration":
                raise
            return []
        return list(found.get("Rules", ()))

    async def write(self, wanted: Sequence[rules.Rule]) -> None:
        if wanted:
            configuration = {"Rules": list(wanted)}
            await self._client.put_bucket_lifecycle_configuration(
                Bucket=self.bucket, LifecycleConfiguration=configuration
            )
        else:  # an empty configuration is refused
            await self._client.delete_bucket_lifecycle(Bucket=self.bucket)


class _Events:
    """What a bucket announces to queues; topics and functions stay as they are."""

    what = "notifications"
    in_words = staticmethod(rules.notification_in_words)

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self.bucket = bucket
        self._rest: dict[str, Any] = {}

    async def read(self) -> list[rules.Rule]:
        found = await self._client.get_bucket_notification_configuration(Bucket=self.bucket)
        self._rest = {key: value for key, value in found.items() if key != "ResponseMetadata"}
        return list(self._rest.pop("QueueConfigurations", ()))

    async def write(self, wanted: Sequence[rules.Rule]) -> None:
        await self._client.put_bucket_notification_configuration(
            Bucket=self.bucket, NotificationConfiguration={**self._rest, "QueueConfigurations": list(wanted)}
        )


async def _attempted(place: _Lifecycle | _Events, wanted: list[rules.Rule], *, apply: bool) -> Item:
    """Look at, or bring about, the rules of one kind at one bucket."""

    def words(found: Sequence[rules.Rule]) -> str:
        return "; ".join(sorted(map(place.in_words, found))) or NONE

    item = Item(place.bucket, place.what, words(wanted), NONE)
    try:
        there = await place.read()
        strangers = rules.others(there)
        known = {place.in_words(rule) for rule in strangers}
        # What somebody else has set already is done; most servers refuse it a second time.
        missing = [rule for rule in wanted if place.in_words(rule) not in known]
        item = replace(item, wanted=words(missing), found=words(rules.ours(there)))
        if strangers:
            item = replace(item, note=f"kept as set by others: {words(strangers)}")
        if apply and not item.as_wanted:
            await place.write([*strangers, *missing])
            item = replace(item, found=words(rules.ours(await place.read())), changed=True)
    except ClientError as error:
        if not apply and _code(error) == "NoSuchBucket":
            return replace(item, found="no bucket")
        return replace(item, trouble=_told(error))
    return item


@contextmanager
def _explained(bucket: str) -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, aiohttp.ClientError, OSError) as error:
        raise ServiceError("object store", f"{bucket}: {error}", "see the section [s3] of config.toml") from error


def _told(error: ClientError) -> str:
    code = _code(error)
    said = str(error.response.get("Error", {}).get("Message", "")).strip()
    hint = _HINTS.get(code, "")
    return ": ".join(filter(None, (code, said if said != code else ""))) + (f" ({hint})" if hint else "")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown error"))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
