"""What the windows of one channel of a job have in common: their language, and what was said before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from v2td.config import EngineSettings
from v2td.engine.batch import MAX_PROMPT_TOKENS, WindowRequest
from v2td.engine.hearing import Hearing, Item, Recognition
from v2td.engine.packing import LONGEST_CLIP_SECONDS
from v2td.jobs import SAMPLE_RATE, Options, Window, WindowMode
from v2td.language import LANGUAGE_WINDOWS, Ballot, elect

RESET_TEMPERATURE = 0.5  # a text that needed more is no good prompt (Whisper's prompt_reset_on_temperature)


class Voice:
    """Makes the requests of one channel's windows, in their order; `enqueue` puts one of them into the queue.

    It is told, too, whether the request is final, or may be followed by one for the same window.
    """

    def __init__(
        self, hearing: Hearing, settings: EngineSettings, enqueue: Callable[[WindowRequest, bool], Item]
    ) -> None:
        options = hearing.options
        if options.language is None and not options.languages and not options.multilingual:
            options = replace(options, language=settings.default_language)
        self._hearing = hearing
        self._settings = settings
        self._enqueue = enqueue
        self._options: Options = options
        self._votes = options.language is None and not options.multilingual
        self.items: list[Item] = []
        self.language = options.language
        self.probability: float | None = None

    async def add(self, window: Window) -> None:
        """Enqueue the next window; wait first for what has to be known before it: the language, the text so far."""
        if self._votes and len(self.items) == LANGUAGE_WINDOWS:
            await self._vote()
        previous: tuple[int, ...] = ()
        if self._options.condition_on_previous_text and self.items:
            previous = await self._said()
        self.items.append(self._enqueue(self._request(window, self._options, previous), not self._votes))

    async def settle(self) -> None:
        """Wait for the windows; then `items` are final, all in the language that they elected."""
        if self._votes:
            await self._vote()
        results = await asyncio.gather(*(item.done for item in self.items))
        if self._options.multilingual:
            self._elect([await item.ballot() for item in self.items])
        elif results:  # not always what the job said: a model for English alone hears English
            self.language = results[0][0].language

    async def _vote(self) -> None:
        """Let the windows so far elect the language; those that were heard in another are heard again."""
        self._votes = False
        self._elect([await item.ballot() for item in self.items])
        if self.language is None:
            return
        self._options = replace(self._options, language=self.language)
        for number, item in enumerate(self.items):
            if item.done.result()[0].language != self.language:
                again = self._request(item.window, self._options, item.request.previous)
                self.items[number] = self._enqueue(again, True)
            else:
                self._hearing.on_done(item.window)

    def _elect(self, ballots: list[Ballot]) -> None:
        if (elected := elect(ballots)) is not None:
            self.language, self.probability = elected
        elif self.items:  # a model for English alone detects nothing
            self.language = self.items[0].done.result()[0].language

    async def _said(self) -> tuple[int, ...]:
        """Return the tokens of what was said before the next window, unless the last one was guesswork."""
        last = self.items[-1]
        result, _timing = await last.done
        if any(segment.temperature > RESET_TEMPERATURE for segment in result.segments):
            return ()
        return (last.request.previous + result.tokens)[-MAX_PROMPT_TOKENS:]

    def _request(self, window: Window, options: Options, previous: tuple[int, ...]) -> WindowRequest:
        hearing = self._hearing
        beam_size = options.beam_size or self._settings.beam_size
        mode = self._mode(window, options)
        return WindowRequest(hearing.pcm, hearing.channels, window, options, beam_size, mode, previous)

    def _mode(self, window: Window, options: Options) -> WindowMode:
        """Return how the encoder sees a window: it is shared only if its language is known and its text is its own."""
        mode = self._settings.window_mode
        shareable = (
            options.language is not None
            and not options.multilingual
            and not options.condition_on_previous_text
            and not options.word_timestamps  # which are worse among other messages
            and window.length <= LONGEST_CLIP_SECONDS * SAMPLE_RATE
        )
        return "full" if mode == "packed" and not shareable else mode


def recognition(hearing: Hearing, voices: Mapping[int | None, Voice]) -> Recognition:
    """Return what the voices of a job, by channel, have heard when all are settled.

    The job's language is that of the voice that speaks most.
    """
    items = sorted((item for voice in voices.values() for item in voice.items), key=lambda item: item.window.index)
    results = [item.done.result() for item in items]
    main = max(voices.values(), key=lambda voice: sum(item.window.speech_length for item in voice.items), default=None)
    return Recognition(
        language=main.language if main else hearing.options.language,
        language_probability=main.probability if main else None,
        channel_languages=tuple(
            (channel, voice.language)
            for channel, voice in sorted(voices.items(), key=lambda each: each[0] or 0)
            if channel is not None and voice.language is not None
        ),
        windows=tuple((item.window, result) for item, (result, _) in zip(items, results, strict=True)),
        timings=tuple(timing for _, timing in results),
    )
