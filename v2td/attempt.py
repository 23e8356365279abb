"""One attempt at a job: fetch → (cache?) → prepare → route → transcribe. Nothing is written here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

from v2td import failpoints
from v2td.config import LOCAL, Settings
from v2td.errors import ErrorClass, TransientJobError
from v2td.fetch import Downloader
from v2td.jobs import Audio, Heard, Job, Transcript, Window
from v2td.limit import Deadlines, PreparedLimit
from v2td.local import Local, windows_told
from v2td.progress import Journal, Journals
from v2td.providers import Answer, Decision, Facts, Needs, Providers, Recording, text_sha256
from v2td.results import Found, ResultCache
from v2td.speech import Decoders, Speech, covered_by_channel
from v2td.stages import Stage, Trail

_FETCH, _QUEUE, _PREPARE, _TRANSCRIBE = map(Stage, ("fetch", "queue", "prepare", "transcribe"))


@dataclass(frozen=True, slots=True)
class Hearers:
    """What makes a transcript of a job; all open. `results` is None when results are not cached."""

    downloader: Downloader
    decoders: Decoders
    local: Local
    providers: Providers
    results: ResultCache | None
    journals: Journals


@dataclass(slots=True)
class Journey:
    """What is known of a job on its way."""

    job: Job
    trail: Trail
    deadlines: Deadlines
    journal: Journal
    attempt: int = 1
    on_text: Callable[[Window, str], None] = lambda _window, _text: None
    becomes_row: bool = True  # nobody keeps what came by HTTP: no row may name it

    @property
    def began(self) -> float:
        """The time.monotonic() at which it began."""
        return self.trail.began

    @property
    def timings(self) -> dict[str, Any]:
        """What took how long in this attempt."""
        return self.trail.timings

    def begin(self) -> None:
        """Begin an attempt; JobError when none may begin."""
        self.journal.check()
        self.trail.begin(self.attempt)
        self.deadlines.start_attempt()

    def facts(self, audio: Audio) -> Facts:
        """Return what the rules may ask about, as far as it is known of a file that was not decoded."""
        job = self.job
        return Facts(
            size_bytes=audio.size_bytes,
            seconds=None,
            language=job.options.language,
            priority=job.priority,
            topic=job.coordinates.topic,
            tenant=job.tenant,
            metadata=job.metadata,
        )


class Attempts:
    """Makes transcripts, `max_prepared` recordings decoded or being transcribed at once by each provider."""

    def __init__(self, hearers: Hearers, settings: Settings, max_prepared: int) -> None:
        self._hearers = hearers
        self._routing = settings.routing
        self._windows = windows_told(settings.speech)
        # For each target of the rules: jobs that wait for a slow one keep no place from the others.
        self._prepared = {name: PreparedLimit(max_prepared) for name in settings.providers.targets}

    async def make(self, journey: Journey) -> Transcript:
        """Return the job's transcript. Raises JobError, transient where another attempt may help; ServiceError."""
        job = journey.job
        journey.begin()
        with _FETCH.under_way(journey.trail):
            audio = await self._hearers.downloader.fetch(job.audio_url, job.version_id)
        try:
            await failpoints.reach("pipeline.fetched")
            return await self.hear(journey, audio)
        finally:
            self._hearers.downloader.discard(audio)

    async def hear(self, journey: Journey, audio: Audio) -> Transcript:
        """Return the transcript of a recording that is here, from the cache of results if it has it."""
        job = journey.job
        facts = journey.facts(audio)
        decided = self._hearers.providers.decide(facts, job.provider, job.model)
        results = self._hearers.results
        if results is None:
            return await self._prepare(journey, audio, facts, decided)
        if job.redo is not None:  # not what is there already, and from now on this instead
            transcript = await self._prepare(journey, audio, facts, decided)
            results.settle(transcript)
            return transcript
        known, digests = facts, self._digests(job, decided)
        while True:  # again for each fact that a text tells, at most
            async with results.lease(audio.sha256, digests, job.priority) as lease:
                if lease.found is None:
                    transcript = await self._prepare(journey, audio, facts, decided)
                    lease.settle(transcript, becomes_row=journey.becomes_row)
                    return transcript
                if isinstance(decided, Needs):  # the text tells what the rules hinge on: they may want another's
                    known = _told(known, lease.found)
                    digests = self._digests(job, self._hearers.providers.decide(known, job.provider, job.model))
                if lease.found.text_sha256 in digests:
                    return lease.found.transcript(job, audio, journey.began, journey.timings)

    def _digests(self, job: Job, decided: Decision | Needs) -> list[str]:
        """Return under which digests a text is one that the job may have."""
        possible = self._hearers.providers.possible(decided, job.options)
        return [text_sha256(job.options, provider, self._windows) for provider in possible]

    async def _prepare(self, journey: Journey, audio: Audio, facts: Facts, decided: Decision | Needs) -> Transcript:
        trail, waiting = journey.trail, time.monotonic()
        trail.stage = "queue"
        target = decided.target if isinstance(decided, Decision) else LOCAL  # whose engine may have to hear some of it
        place = self._prepared[target].inside(journey.job.priority, audio.size_bytes)
        async with self._hearers.providers.expecting(decided), place:
            _QUEUE.record(waiting, time.monotonic() - waiting, trail)
            trail.stage = "prepare"
            decoding = time.monotonic()
            on_death = partial(self._died, journey.journal, "decoder")
            prepare = self._hearers.decoders.prepare(
                audio, journey.job.options.channels, on_death, journey.job.priority
            )
            try:
                async with prepare as speech, journey.deadlines.attempt:
                    recording = self._recording(journey, audio, speech)
                    decision, recording = await self._route(journey, facts, decided, speech, recording)
                    with _TRANSCRIBE.under_way(trail):
                        answer = await self._hearers.providers.transcribe(decision, recording)
            except TimeoutError as error:
                raise TransientJobError(ErrorClass.TIMEOUT, "the transcription took longer than it may") from error
        trail.stage = None
        _PREPARE.record(decoding, speech.decode_seconds, trail)
        return self._transcript(journey, audio, speech, decision, answer)

    def _died(self, journal: Journal, kind: str) -> None:
        self._hearers.journals.note_death()
        journal.died(kind)

    def _recording(self, journey: Journey, audio: Audio, speech: Speech) -> Recording:
        job, deadlines = journey.job, journey.deadlines
        return Recording(
            job=job.id,
            audio=audio,
            pcm=speech.pcm,
            channels=speech.channels,
            windows=_Counted(speech.windows, journey.trail),
            options=job.options,
            priority=job.priority,
            began=journey.began,
            on_progress=lambda: deadlines.heard(speech.audio_seconds),
            on_done=speech.release,
            on_death=partial(self._died, journey.journal, "slot"),
            on_text=partial(_heard, journey),
        )

    async def _route(
        self, journey: Journey, facts: Facts, decided: Decision | Needs, speech: Speech, recording: Recording
    ) -> tuple[Decision, Recording]:
        """Return who is asked, and the recording as it is to be given to them.

        Where rules hinge on it, all is decoded first for the duration, and one window heard for the language.
        """
        job = journey.job
        while isinstance(decided, Needs):
            if "seconds" in decided.facts:
                windows = [window async for window in recording.windows]
                recording = replace(recording, windows=_Windows(windows, recording.windows))
                facts = replace(facts, seconds=speech.audio_seconds)
            else:
                first = await anext(recording.windows, None)
                recording = replace(recording, windows=_Windows([first] if first else [], recording.windows))
                facts = replace(facts, language=await self._language(journey, recording, first))
            decided = self._hearers.providers.decide(facts, job.provider, job.model)
        if facts.language and decided.target != LOCAL:  # which has its own way to elect one
            recording = replace(recording, options=replace(recording.options, language=facts.language))
        return decided, recording

    async def _language(self, journey: Journey, recording: Recording, first: Window | None) -> str:
        """Return the language that the engine hears in the first window; it keeps that text, should it get the job."""
        if first is None:
            return ""
        journey.journal.again()
        alone = replace(
            recording,
            windows=_Windows([first]),
            on_done=lambda _window: None,
            on_text=lambda _window, _text: None,
        )
        heard: Heard = await self._hearers.local.transcribe(alone)
        return heard.language or ""

    def _transcript(
        self, journey: Journey, audio: Audio, speech: Speech, decision: Decision, answer: Answer
    ) -> Transcript:
        heard = answer.heard
        timings = {**journey.timings, **heard.timings}
        if speech.damage:
            timings["damage"] = speech.damage
        asked = self._routing.rules or answer.tried or journey.job.provider
        route = {**decision.as_json(), "tried": [list(each) for each in answer.tried]} if asked else None
        return Transcript(
            job=journey.job,
            audio_sha256=audio.sha256,
            audio_bytes=audio.size_bytes,
            audio_seconds=speech.audio_seconds,
            speech_seconds=speech.speech_seconds,
            covered_seconds=covered_by_channel(heard.segments, heard.windows),
            language=heard.language,
            language_probability=heard.language_probability,
            segments=heard.segments,
            provider=answer.provider.name,
            model=heard.model,
            truncated=speech.truncated,
            duration_seconds=time.monotonic() - journey.began,
            timings=timings,
            text_sha256=text_sha256(journey.job.options, answer.provider, self._windows),
            route=route,
            cost=heard.cost,
        )


def _told(facts: Facts, found: Found) -> Facts:
    """Return the facts with what a text tells of its recording, where that was not known."""
    return replace(
        facts,
        seconds=found.audio_seconds if facts.seconds is None else facts.seconds,
        language=found.language if facts.language is None else facts.language,
    )


def _heard(journey: Journey, window: Window, text: str) -> None:
    journey.trail.windows_heard.add(window.index)
    journey.on_text(window, text)


class _Counted:
    """The windows of a recording, counted in its trail; no generator, which would have to be closed."""

    def __init__(self, windows: AsyncIterator[Window], trail: Trail) -> None:
        self._windows = windows
        self._trail = trail

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Window:
        try:
            window = await anext(self._windows)
        except StopAsyncIteration:
            self._trail.windows_cut = True
            raise
        self._trail.windows_known += 1
        return window


class _Windows:
    """Windows that were taken already, then the others; no generator, which would have to be closed."""

    def __init__(self, taken: Iterable[Window], rest: AsyncIterator[Window] | None = None) -> None:
        self._taken = deque(taken)
        self._rest = rest

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Window:
        if self._taken:
            return self._taken.popleft()
        if self._rest is None:
            raise StopAsyncIteration
        return await anext(self._rest)
