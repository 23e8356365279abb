"""One recording on its way through an API like OpenAI's: packed, sent in chunks, and its times put back."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from random import Random
from threading import Event
from typing import Any

from v2td.config import OpenAISettings
from v2td.errors import ProviderFailedError, ProviderRefusedError, first_of
from v2td.jobs import SAMPLE_RATE, Heard, Options, Segment, Span, Task, Window
from v2td.providers.chunks import Chunk, Chunker, Ledger
from v2td.providers.openai_answers import Said, Sent, read
from v2td.providers.openai_client import Client, Turn, Upload
from v2td.providers.protocol import Recording
from v2td.providers.upload import BYTES_PER_SAMPLE, MOST_BYTES, USUAL_BYTES, Codec, Stretch, kind_of, pack
from v2td.retry import Backoff

CHUNKS_AT_ONCE = 4  # of one recording
ATTEMPTS = 3  # of a chunk, once another one of its recording was heard and paid for
TAIL_CHARACTERS = 200  # of what was heard before; Whisper reads some 224 tokens of a prompt, and the last ones
PATHS: dict[Task, str] = {"transcribe": "audio/transcriptions", "translate": "audio/translations"}

_BACKOFF = Backoff()


@dataclass(slots=True)
class _Voice:
    """A channel, or the mix of all: what its later chunks take from the earlier ones."""

    language: str | None
    before: asyncio.Event | None = None  # set when the chunk is heard that the next one waits for
    tail: str = ""


class Hearing:
    """One recording on its way through an API."""

    def __init__(
        self,
        settings: OpenAISettings,
        client: Client,
        packing: asyncio.Semaphore,
        recording: Recording,
        *,
        plain: bool,
    ) -> None:
        self._settings = settings
        self._client = client
        self._packing = packing
        self._recording = recording
        self._plain = plain
        self._codec: Codec = "flac" if settings.codec == "original" else settings.codec
        seconds = min(settings.chunk_seconds, settings.max_bytes / MOST_BYTES[self._codec])
        self._limit = max(1, int(seconds * SAMPLE_RATE))
        self._places = asyncio.Semaphore(CHUNKS_AT_ONCE)
        self._random = Random()  # noqa: S311 (jitter)
        self._stop = Event()
        self._ledger = Ledger()
        self._windows: list[Window] = []
        self._segments: list[Segment] = []
        self._voices: dict[int | None, _Voice] = {}
        self._requests: list[dict[str, Any]] = []
        self._languages: Counter[str] = Counter()  # samples of speech in each
        self._seconds = 0.0  # that were paid for

    async def run(self) -> Heard:
        """Return what is said."""
        chunker = Chunker(self._limit)
        chunks = 0
        try:
            async with asyncio.TaskGroup() as group:
                async for window in self._recording.windows:
                    self._windows.append(window)
                    for chunk in chunker.feed(window):
                        chunks += 1
                        await self._begin(group, chunk, None)
                last = chunker.finish()
                alone = chunks == 0 and len(last) == 1
                original = await self._original() if alone else None
                for chunk in last:
                    await self._begin(group, chunk, original)
        except ExceptionGroup as error:
            raise first_of(error) from None
        finally:
            self._stop.set()
        return self._heard()

    async def _begin(self, group: asyncio.TaskGroup, chunk: Chunk, original: Upload | None) -> None:
        """Have a chunk heard as soon as there is a place, and what it needs of earlier ones is known."""
        options = self._recording.options
        await self._places.acquire()
        self._ledger.add(chunk)
        voice = self._voices.setdefault(chunk.channel, _Voice(options.language or _only(options.languages)))
        before, done = voice.before, asyncio.Event()
        if options.condition_on_previous_text or (before is None and voice.language is None):
            voice.before = done  # it says in which language they are
        group.create_task(self._chunk(chunk, voice, original, before, done))

    async def _chunk(
        self, chunk: Chunk, voice: _Voice, original: Upload | None, before: asyncio.Event | None, done: asyncio.Event
    ) -> None:
        try:
            if before is not None:
                await before.wait()
            said = await self._said(chunk, voice, original)
        finally:
            self._places.release()
        text = " ".join(each.text.strip() for each in said.segments)
        if text:
            voice.language = voice.language or self._language(said)
            voice.tail = text[-TAIL_CHARACTERS:]
        if voice.language is not None:
            self._languages[voice.language] += sum(span.length for span in chunk.speech)
        self._segments += said.segments
        done.set()
        for window, heard in self._ledger.heard(chunk, said.segments):
            self._recording.on_text(window, heard)
            self._recording.on_done(window)
        self._recording.on_progress()

    def _language(self, said: Said) -> str | None:
        """Return the language that was heard; who translates says which one it speaks."""
        return said.language if self._recording.options.task == "transcribe" else None

    async def _said(self, chunk: Chunk, voice: _Voice, original: Upload | None) -> Said:
        """Return what the API hears in a chunk, whose file may be the recording's own."""
        if original is not None:
            try:
                return await self._asked(chunk, Span(0, self._length()), original, voice)
            except (ProviderRefusedError, OSError):  # OSError: a file:// source that somebody removed
                pass  # a kind of file that it knows by name only: it takes ours
        return await self._asked(chunk, Span(chunk.start, chunk.end), await self._packed(chunk), voice)

    async def _asked(self, chunk: Chunk, span: Span, upload: Upload, voice: _Voice) -> Said:
        recording = self._recording
        words = recording.options.word_timestamps and not self._plain
        sent = Sent(span.start, span.end, chunk.speech, chunk.channel, words)
        path, fields = PATHS[recording.options.task], self._fields(voice, words=words)
        attempt, began = 1, 0.0

        def begin() -> None:
            nonlocal began
            began = time.monotonic()
            recording.on_progress()

        while True:
            try:
                turn = Turn(recording.priority, begin, last=recording.last)
                said = read(await self._client.post(path, fields, upload, turn), sent)
            except ProviderFailedError as error:
                asked = error.retry_after or 0.0
                if not self._seconds or attempt >= ATTEMPTS or asked > _BACKOFF.maximum:
                    raise
                await asyncio.sleep(_BACKOFF.pause(attempt, self._random, error.retry_after))
                attempt += 1
            else:
                seconds = span.length / SAMPLE_RATE
                self._seconds += seconds
                self._requests.append(self._request(began, seconds, upload, attempt))
                return said

    def _request(self, began: float, seconds: float, upload: Upload, attempt: int) -> dict[str, Any]:
        """Return what `transcriptions.timings` says of a request."""
        content = upload.content
        size = len(content) if isinstance(content, bytes) else self._recording.audio.size_bytes
        return {
            "start": round(began - self._recording.began, 6),
            "seconds": round(time.monotonic() - began, 6),
            "audio_seconds": round(seconds, 3),
            "bytes": size,
            "kind": upload.suffix,
            "attempts": attempt,
        }

    def _fields(self, voice: _Voice, *, words: bool) -> list[tuple[str, str]]:
        options = self._recording.options
        fields = [
            ("model", self._settings.model),
            ("response_format", "json" if self._plain else "verbose_json"),
            ("temperature", f"{self._settings.temperature:g}"),
        ]
        if not self._plain and options.task == "transcribe":
            granularities = ("segment", "word") if words else ("segment",)
            fields += [("timestamp_granularities[]", each) for each in granularities]
        if voice.language is not None and options.task == "transcribe":
            fields.append(("language", voice.language))
        if prompt := _prompt(options, voice.tail):
            fields.append(("prompt", prompt))
        return fields

    async def _packed(self, chunk: Chunk) -> Upload:
        """Pack a chunk; raises ProviderRefusedError when that is too large all the same."""
        recording = self._recording
        stretch = Stretch(recording.pcm, recording.channels, chunk.channel, chunk.start, chunk.end)
        async with self._packing:
            content = await asyncio.to_thread(pack, stretch, self._codec, self._stop)
        if len(content) > self._settings.max_bytes:
            raise ProviderRefusedError(f"{chunk.seconds:.0f} s take {len(content)} bytes, more than max_bytes allows")
        return Upload(content, "ogg" if self._codec == "opus" else "flac")

    async def _original(self) -> Upload | None:
        """Return the recording's own file, if the API takes it and it is no larger than what we would make of it."""
        audio, length = self._recording.audio, self._length()
        usual = length / SAMPLE_RATE * USUAL_BYTES[self._codec]
        smaller = self._settings.codec == "original" or audio.size_bytes <= usual
        if not smaller or audio.size_bytes > self._settings.max_bytes:
            return None
        if length > self._limit or self._recording.options.channels == "split":
            return None
        try:
            kind = await asyncio.to_thread(kind_of, audio.path)
        except OSError:
            return None
        return None if kind is None else Upload(audio.path, kind)

    def _length(self) -> int:
        """Return the recording's length in samples; all of it is decoded when the last window was taken."""
        return self._recording.pcm.stat().st_size // (self._recording.channels * BYTES_PER_SAMPLE)

    def _heard(self) -> Heard:
        timings: dict[str, Any] = {"requests": self._requests}
        if self._recording.options.channels == "split":
            said = {str(channel): each.language for channel, each in self._voices.items() if each.language}
            timings["channel_languages"] = said
        options = self._recording.options
        most = self._languages.most_common(1)
        return Heard(
            segments=tuple(sorted(self._segments, key=lambda each: each.start)),
            windows=tuple(self._windows),
            language=most[0][0] if most else options.language,
            language_probability=None,
            model=self._settings.model,
            timings=timings,
            cost=self._seconds / 60 * self._settings.cost_per_minute,
        )


def _only(languages: tuple[str, ...]) -> str | None:
    """Return the language of a choice of one."""
    return languages[0] if len(languages) == 1 else None


def _prompt(options: Options, tail: str) -> str:
    """Return what the API reads before it listens: words to expect, the prompt, and what was heard before."""
    heard = tail if options.condition_on_previous_text else ""
    return " ".join(each for each in (options.hotwords, options.prompt, heard) if each)
