"""The settings of what is kept beside the rows: caches, files of transcripts, buckets, the API that takes uploads."""

from __future__ import annotations

from collections.abc import Iterator
from string import Formatter
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, SecretStr
from pydantic_core import PydanticCustomError

from v2td.config.values import AbsolutePath, Count, Seconds, Section, Text

Format = Literal["txt", "json", "srt", "vtt", "tsv", "md"]
Bucket = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", examples=["v2t-transcriptions"])]
KEY_FIELDS = frozenset(
    {"id", "job_id", "stem", "path", "bucket", "topic", "partition", "offset", "tenant", "language", "date"}
)


def _key_template(template: str) -> str:
    """Refuse what cannot be filled in, or what servers do not take as a key."""
    known = ", ".join(f"{{{name}}}" for name in sorted(KEY_FIELDS))
    try:
        parts = list(Formatter().parse(template))
    except ValueError:
        parts = [("", "", "", None)]
    for _text, name, form, conversion in parts:
        if name is not None and (name not in KEY_FIELDS or form or conversion):
            raise _unfit(f"a text with some of {known}")
    if template.startswith("/") or {"", ".", ".."} & set(template.split("/")[:-1]):
        raise _unfit("without empty folders, . and ..")
    return template


def _unfit(requirement: str) -> PydanticCustomError:
    return PydanticCustomError("requirement", "must be {requirement}", {"requirement": requirement})


KeyTemplate = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_key_template)]
Days = Annotated[int, Field(ge=1, le=36_500)]
RedisUrl = Annotated[SecretStr, Field(examples=["redis://:password@127.0.0.1:6379/0"])]


class CacheSettings(Section):
    """Work that need not be done twice."""

    results: bool = Field(
        False,
        description="Take the text of a recording that was transcribed before, byte for byte the same and with the "
        "same model and options, from Postgres; of several under way one is transcribed.",
    )
    redis_url: RedisUrl | None = Field(None, description="A Redis that is asked before Postgres.")
    redis_ttl_seconds: Seconds = Field(86_400, description="How long it keeps a result.")
    redis_timeout_seconds: Seconds = Field(0.25, description="Longest wait for it; then it is done without.")
    file_bytes: Annotated[int, Field(ge=0)] = Field(
        0, description="Bytes of downloaded recordings kept on disk, the least recently used go first; 0: none."
    )
    file_max_bytes: Count = Field(100_000_000, description="Larger ones are not kept.")
    file_admission: Literal["second", "first"] = Field(
        "second", description="Keep what is asked for a second time, or at once."
    )
    file_dir: AbsolutePath | None = Field(
        None, description="Folder that all daemons of this machine share; below fetch.spool_dir when unset."
    )


class OutputSettings(Section):
    """Files of each transcript in the object store, written before its offset is committed."""

    formats: tuple[Format, ...] = Field((), description="Which files every transcript gets; messages may say more.")
    where: Literal["bucket", "source"] = Field(
        "bucket", description="In the bucket below, or beside the recording if that is an s3:// URL."
    )
    bucket: Bucket = Field("v2t-transcriptions", description="Bucket for them.")
    key: KeyTemplate = Field(
        "{date}/{stem}-{id}",
        description="Key without suffix, of {id}, {job_id}, {stem} (the recording's name), {path} (its key without "
        "suffix), {bucket}, {topic}, {partition}, {offset}, {tenant}, {language}, {date} (of the record).",
    )
    on_error: Literal["fail", "ignore"] = Field(
        "fail", description="What becomes of a job whose files cannot be written after all attempts."
    )
    part_bytes: Annotated[int, Field(ge=5_242_880)] = Field(
        67_108_864, description="Larger files go up in parts of this size…"
    )
    parts: Count = Field(4, description="…so many at once.")


class StorageSettings(Section):
    """What `v2td storage apply` sets on buckets."""

    transcript_days: Days | None = Field(None, description="Transcripts' files are deleted after so many days.")
    transition_days: Days = Field(7, description="They move to the tier below after so many days.")
    tier: Text | None = Field(None, description="Storage class or tier the server has; none: they stay.")
    source_buckets: tuple[Bucket, ...] = Field((), description="Buckets whose new objects become jobs.")
    notify_arn: Text | None = Field(
        None, description="The server's Kafka target, such as arn:minio:sqs::T1:kafka, which writes to a topic of ours."
    )
    notify_prefix: str = Field("", description="Only objects whose keys begin so.")
    notify_suffixes: tuple[Text, ...] = Field((), description="Only objects whose keys end so; all when empty.")

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """What is announced has somewhere to go and is no transcript; nothing moves to a tier after it is gone."""
        if self.source_buckets and self.notify_arn is None:
            yield "notify_arn", "set, since source_buckets is"
        files = [f".{each}" for each in get_args(Format)]
        for suffix in self.notify_suffixes:
            if any(each.endswith(suffix) or suffix.endswith(each) for each in files):
                yield "notify_suffixes", f"without {suffix}, since files of transcripts end so"
        if self.tier and self.transcript_days is not None and self.transcript_days <= self.transition_days:
            yield "transcript_days", f"more than transition_days ({self.transition_days}), since tier is set"


class ApiSettings(Section):
    """Jobs and transcription on demand, at the admin endpoint's address and behind its guard."""

    openai: bool = Field(
        False, description="Serve /v1/audio/transcriptions, /v1/audio/translations and /v1/models as OpenAI does."
    )
    jobs: bool = Field(
        True, description="Serve /v1/jobs and /v1/transcripts where admin.token is set: jobs go to Kafka."
    )
    jobs_topic: Text | None = Field(None, description="Topic that such jobs go to; the first of kafka.topics if unset.")
    jobs_per_second: Count = Field(
        500, description="Requests to /v1/jobs from one address with the token; ten seconds' worth may come at once."
    )
    max_bytes: Count = Field(104_857_600, description="Largest upload.")
    priority: Annotated[int, Field(ge=0, le=9)] = Field(0, description="Priority of its jobs; messages have 5.")
    concurrency: Count = Field(32, description="Requests under way at once; more are answered with 429.")
    request_seconds: Seconds = Field(600, description="Longest request, from its first byte to the text.")
