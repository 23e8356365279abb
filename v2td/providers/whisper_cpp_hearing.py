"""A recording heard window by window, as whisper.cpp does in a child of ours and behind its server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Protocol

from v2td.clock import to_recording
from v2td.errors import ProviderRefusedError
from v2td.jobs import SAMPLE_RATE, Heard, Segment, Window
from v2td.language import LANGUAGE_WINDOWS, Ballot, elect
from v2td.providers.protocol import Recording
from v2td.providers.whisper_cpp_worker import WindowRequest, WindowSound, WindowText

ENGLISH = "en"


class Ear(Protocol):
    """Who hears one window of a recording; both raise the errors of Provider.transcribe."""

    async def detect(self, recording: Recording, sound: WindowSound) -> tuple[tuple[str, float], ...]:
        """Return the likeliest languages that the recording may be in, with their probabilities."""

    async def hear(self, recording: Recording, request: WindowRequest) -> WindowText:
        """Return what is said in it."""


class _Voice:
    """The windows of one channel: their language, and what was said before."""

    def __init__(self, language: str | None) -> None:
        self.language = language
        self.probability: float | None = None
        self.waiting: list[Window] = []  # for a language
        self.ballots: list[Ballot] = []
        self.said = ""
        self.speech = 0  # samples

    def vote(self) -> None:
        """Let the windows so far decide on the language."""
        if (elected := elect(self.ballots)) is not None:
            self.language, self.probability = elected


class Listening:
    """One recording on its way through an ear; `beam_size` is for jobs that do not say."""

    def __init__(self, recording: Recording, ear: Ear, *, model: str, beam_size: int, multilingual: bool) -> None:
        self._recording = recording
        self._ear = ear
        self._model = model
        self._beam_size = beam_size
        self._voices: dict[int | None, _Voice] = {}
        self._segments: list[Segment] = []
        self._windows: list[Window] = []
        self._timings: list[dict[str, Any]] = []
        self._options = recording.options
        self._asks_each = multilingual and recording.options.multilingual  # each window has a language of its own
        if multilingual:
            self._told = self._options.language
        elif self._options.language in (None, ENGLISH) and self._options.task == "transcribe":
            self._told = ENGLISH
        else:
            raise ProviderRefusedError(f"the model {model} knows English alone, and does not translate")

    async def heard(self) -> Heard:
        """Return all that is said, in order of start."""
        async for window in self._recording.windows:
            voice = self._voices.setdefault(window.channel, _Voice(self._told))
            voice.speech += window.speech_length
            await self._take(voice, window)
        for voice in self._voices.values():
            if voice.waiting:
                await self._settle(voice)
            elif self._asks_each:
                voice.vote()
        return self._all()

    async def _take(self, voice: _Voice, window: Window) -> None:
        """Hear a window, or keep it until the language of the first ones is known."""
        if voice.language is not None and not self._asks_each:
            await self._hear(voice, window, voice.language)
            return
        likely = await self._ear.detect(self._recording, self._sound(window))
        if not likely:
            asked = ", ".join(self._options.languages)
            raise ProviderRefusedError(f"the model {self._model} knows none of the languages {asked}")
        voice.ballots.append(Ballot(likely, window.speech_length / SAMPLE_RATE))
        if self._asks_each:
            await self._hear(voice, window, likely[0][0])
            return
        voice.waiting.append(window)
        if len(voice.waiting) == LANGUAGE_WINDOWS:
            await self._settle(voice)

    async def _settle(self, voice: _Voice) -> None:
        voice.vote()
        waiting, voice.waiting = voice.waiting, []
        for window in waiting:
            assert voice.language is not None, "each of them has voted"
            await self._hear(voice, window, voice.language)

    async def _hear(self, voice: _Voice, window: Window, language: str) -> None:
        recording, options = self._recording, self._options
        request = WindowRequest(
            sound=self._sound(window),
            task=options.task,
            language=language,
            beam_size=options.beam_size or self._beam_size,
            prompt=" ".join(self._prompt(voice)),
            word_timestamps=options.word_timestamps,
        )
        start = time.monotonic()
        result = await self._ear.hear(recording, request)
        timing = {"index": window.index, "start": round(start - recording.began, 6)}
        self._timings.append(timing | {"seconds": round(time.monotonic() - start, 6)})
        self._windows.append(window)
        self._segments += (to_recording(each, window) for each in result.segments)
        voice.said = f"{voice.said} {result.text}".strip()
        recording.on_done(window)
        if result.segments:
            recording.on_text(window, result.text)

    def _prompt(self, voice: _Voice) -> Iterator[str]:
        """Yield what the model takes as said before; of what is too long, it sees the end."""
        if self._options.hotwords:
            yield self._options.hotwords
        if self._options.prompt:
            yield self._options.prompt
        if self._options.condition_on_previous_text and voice.said:
            yield voice.said

    def _sound(self, window: Window) -> WindowSound:
        return WindowSound(self._recording.pcm, self._recording.channels, window)

    def _all(self) -> Heard:
        main = max(self._voices.values(), key=lambda voice: voice.speech, default=None)
        timings: dict[str, Any] = {"windows": sorted(self._timings, key=lambda each: each["index"])}
        languages = {str(channel): each.language for channel, each in self._voices.items() if channel is not None}
        if languages:
            timings["channel_languages"] = languages
        return Heard(
            segments=tuple(sorted(self._segments, key=lambda segment: segment.start)),
            windows=tuple(sorted(self._windows, key=lambda window: window.index)),
            language=main.language if main else self._told,
            language_probability=main.probability if main else None,
            model=self._model,
            timings=timings,
        )
