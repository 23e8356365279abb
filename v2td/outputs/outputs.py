"""Writes a transcript's files to buckets, before its row."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from v2td import metrics
from v2td.config import OutputSettings
from v2td.errors import ErrorClass, JobError, TransientJobError, first_of
from v2td.fetch import ObjectStore
from v2td.fetch.uploads import InMemory, Parts, put
from v2td.formats import FORMATS, Document
from v2td.jobs import Job, Transcript
from v2td.messages.notifications import ROW_ID_METADATA
from v2td.outputs.keys import MAX_KEY_BYTES, beside, filled, source_object

CONTENT_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "txt": "text/plain; charset=utf-8",
        "json": "application/json",
        "srt": "application/x-subrip; charset=utf-8",
        "vtt": "text/vtt; charset=utf-8",
        "tsv": "text/tab-separated-values; charset=utf-8",
        "md": "text/markdown; charset=utf-8",
    }
)
LONG = 500  # segments; longer transcripts are rendered in a thread
# The client waits for ever for a server that does not say 100 Continue, takes no more of a body, or trickles.
FILE_SECONDS = 300.0
MIN_BYTES_PER_SECOND = 50_000

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")  # no ARN: that would name another server
_REFUSED = frozenset({400, 405, 411, 413, 414})  # statuses that another attempt does not cure…
_PASSING = frozenset(  # …but for these, which no message is to blame for: the way, our settings, a quota
    {
        *("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed"),
        *("RequestTimeout", "IncompleteBody", "BadDigest", "InvalidPart", "XMinioAdminBucketQuotaExceeded"),
    }
)
_NOT_THERE = frozenset({"AccessDenied", "NoSuchBucket", "PermanentRedirect"})

_OK, _FAILED = metrics.OUTPUTS.labels("ok"), metrics.OUTPUTS.labels("failed")


@dataclass(frozen=True, slots=True)
class _File:
    """One file to write; `asked` when a message named the bucket."""

    bucket: str
    key: str
    format: str
    asked: bool

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


class Outputs:
    """Files of transcripts: those that `output.formats` gives to all, and those that messages ask for."""

    def __init__(self, settings: OutputSettings, store: ObjectStore) -> None:
        self._settings = settings
        self._store = store
        self._parts = Parts(settings.part_bytes, settings.parts)

    def check(self, job: Job) -> None:
        """Raise JobError when the bucket or the key that a message asks for can never be written.

        Instant: to be asked before hours of transcription.
        """
        asked = job.output
        if asked is None:
            return
        if not _BUCKET.fullmatch(asked.bucket):
            raise _error(f"output.bucket: {asked.bucket} is not a bucket's name")
        if asked.bucket != self._settings.bucket and not self._store.allows(asked.bucket):
            raise _error(f"output.bucket: {asked.bucket} is neither in s3.allowed_buckets nor output.bucket")
        for each in asked.formats:
            self._check_key(_File(asked.bucket, f"{asked.key}.{each}", each, asked=True), job.audio_url)

    async def write(self, transcript: Transcript, source_url: str) -> tuple[str, ...]:
        """Write all files of a transcript and return their s3:// URLs; none when nobody asks for any.

        Doing it again writes the same again. Raises JobError output_error, transient where another attempt may help;
        ServiceError when the object store's settings cannot be used. When one fails others may be there already.
        """
        self.check(transcript.job)
        files = self._files(transcript, source_url)
        for each in files:
            self._check_key(each, source_url)
        if not files:
            return ()
        try:
            async with asyncio.TaskGroup() as group:
                for each in files:
                    group.create_task(self._write(each, transcript))
        except ExceptionGroup as errors:
            raise first_of(errors) from None
        return tuple(each.url for each in files)

    def _files(self, transcript: Transcript, source_url: str) -> list[_File]:
        """Return the files, none twice."""
        settings = self._settings
        found: dict[tuple[str, str], _File] = {}
        if asked := transcript.job.output:
            for each in asked.formats:
                found[asked.bucket, f"{asked.key}.{each}"] = _File(
                    asked.bucket, f"{asked.key}.{each}", each, asked=True
                )
        if settings.formats:
            bucket, key = self._place(transcript, source_url)
            for each in settings.formats:
                found.setdefault((bucket, f"{key}.{each}"), _File(bucket, f"{key}.{each}", each, asked=False))
        return list(found.values())

    def _place(self, transcript: Transcript, source_url: str) -> tuple[str, str]:
        """Return bucket and key, without suffix, of the files that every transcript gets."""
        source = source_object(source_url) if self._settings.where == "source" else None
        if source is not None:
            return source[0], beside(source[1])
        return self._settings.bucket, filled(self._settings.key, transcript, source_url)

    def _check_key(self, file: _File, source_url: str) -> None:
        if len(file.key.encode(errors="replace")) > MAX_KEY_BYTES:
            raise _error(f"the key of the {file.format} file is longer than {MAX_KEY_BYTES} bytes")
        if source_object(source_url) == (file.bucket, file.key):
            raise _error(f"{file.url} is the recording itself, which no transcript may overwrite")

    async def _write(self, file: _File, transcript: Transcript) -> None:
        try:
            content = await _rendered(transcript, file.format)
        except ValueError as error:  # JSON has no NaN, and a provider may have said it
            _FAILED.inc()
            raise _error(f"{file.url} could not be written: {error}") from error
        client = await self._store.client(file.bucket)
        seconds = FILE_SECONDS + len(content) / MIN_BYTES_PER_SECOND
        try:
            async with asyncio.timeout(seconds) as limit:
                await put(
                    client,
                    file.bucket,
                    file.key,
                    InMemory(content),
                    self._parts,
                    ContentType=CONTENT_TYPES[file.format],
                    Metadata={ROW_ID_METADATA: str(transcript.job.id)},
                )
        except (BotoCoreError, ClientError, aiohttp.ClientError, OSError, ValueError) as error:
            _FAILED.inc()
            if limit.expired():
                raise _passing(f"{file.url} could not be written within {seconds:.0f} seconds") from error
            raise _told(error, file) from error
        _OK.inc()
        metrics.OUTPUT_BYTES.inc(len(content))


async def _rendered(transcript: Transcript, name: str) -> bytes:
    document = Document(transcript.segments, transcript.language, transcript.audio_seconds, transcript.model)

    def render() -> bytes:
        return FORMATS[name](document).encode(errors="replace")  # a provider may have said half a character

    return await asyncio.to_thread(render) if len(transcript.segments) > LONG else render()


def _told(error: Exception, file: _File) -> JobError:
    """Return what the job fails with: for good only where the message, or what it brought about, is to blame."""
    if not isinstance(error, ClientError):
        reason = f"{file.url} could not be written: {str(error) or type(error).__name__}"
        return _error(reason) if isinstance(error, ParamValidationError) else _passing(reason)
    code = str(error.response.get("Error", {}).get("Code", "unknown error"))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    reason = f"{file.url} could not be written: {code}"
    if code in _NOT_THERE:
        # The configuration's bucket may be made, or opened to us, while the job waits.
        return _error(reason) if file.asked else _passing(reason)
    return _error(reason) if status in _REFUSED and code not in _PASSING else _passing(reason)


def _error(reason: str) -> JobError:
    return JobError(ErrorClass.OUTPUT_ERROR, reason)


def _passing(reason: str) -> TransientJobError:
    return TransientJobError(ErrorClass.OUTPUT_ERROR, reason)
