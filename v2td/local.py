"""The engine as a provider: the default one, which hears windows of many jobs together."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self

from v2td.config import LOCAL, Settings, SpeechSettings
from v2td.engine import Engine, Hearing, Recognition, WindowRequest, WindowResult
from v2td.jobs import Heard, WindowTiming
from v2td.progress import Journals
from v2td.providers import EVERYTHING, Capabilities, Recording
from v2td.speech import to_recording

# What of the settings changes a text, and not only when it comes.
_TELLING = {
    "engine": ("compute_type", "device", "beam_size", "window_mode", "pack_gap_seconds", "default_language"),
}
_OF_WINDOWS = ("window_seconds", "vad_threshold", "min_speech_seconds", "min_silence_seconds", "pad_seconds")


class Local:
    """The engine, opened and closed by its owner. What a restart interrupted goes on from the job's journal."""

    name = LOCAL
    capabilities = Capabilities(frozenset({"transcribe", "translate"}), None, EVERYTHING, split=True)
    concurrency = 0  # it has a queue of its own

    def __init__(self, engine: Engine, journals: Journals, settings: Settings) -> None:
        self._engine = engine
        self._journals = journals
        self.model = settings.engine.model
        self.fingerprint = _fingerprint(settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def transcribe(self, recording: Recording) -> Heard:
        """Return what is heard in all windows. Raises JobError of the recording alone."""
        recognition = await self._engine.transcribe(self._hearing(recording))
        heard = (to_recording(each, window) for window, result in recognition.windows for each in result.segments)
        return Heard(
            segments=tuple(sorted(heard, key=lambda segment: segment.start)),
            windows=tuple(window for window, _ in recognition.windows),
            language=recognition.language,
            language_probability=recognition.language_probability,
            model=self.model,
            timings=_timings(recognition),
        )

    async def health(self) -> str | None:
        """Return None: slots that cannot be brought up end the daemon."""
        return None

    def _hearing(self, recording: Recording) -> Hearing:
        journal = self._journals.of(recording.job)
        audio_sha256 = recording.audio.sha256

        def known(request: WindowRequest) -> WindowResult | None:
            return journal.known(request, audio_sha256) if journal else None

        def on_heard(request: WindowRequest, result: WindowResult) -> None:
            if journal:
                journal.heard(request, audio_sha256, result)
            recording.on_text(request.window, " ".join(each.text.strip() for each in result.segments))

        return Hearing(
            pcm=recording.pcm,
            channels=recording.channels,
            windows=recording.windows,
            options=recording.options,
            priority=recording.priority,
            began=recording.began,
            on_progress=recording.on_progress,
            on_done=recording.on_done,
            known=known,
            on_heard=on_heard,
            on_death=recording.on_death,
        )


def windows_told(settings: SpeechSettings) -> str:
    """Return what of the settings decides how windows are cut, and so what every provider hears."""
    return " ".join(f"{getattr(settings, name):g}" for name in _OF_WINDOWS)


def _fingerprint(settings: Settings) -> str:
    told: dict[str, Any] = {
        section: {name: str(getattr(getattr(settings, section), name)) for name in names}
        for section, names in _TELLING.items()
    }
    told["quality"] = settings.quality.model_dump(mode="json")
    return f"{LOCAL} {hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()}"


def _timings(recognition: Recognition) -> dict[str, Any]:
    timings: dict[str, Any] = {"redone_windows": recognition.redone_windows, "flags": list(recognition.flags)}
    if recognition.channel_languages:
        timings["channel_languages"] = {str(channel): each for channel, each in recognition.channel_languages}
    timings["windows"] = [_timing(each) for each in recognition.timings]
    return timings


def _timing(window: WindowTiming) -> dict[str, Any]:
    return {
        "index": window.index,
        "slot": window.slot,
        "start": round(window.start, 6),
        "seconds": round(window.seconds, 6),
        "flags": window.flags,
        "batch": window.batch,
    }
