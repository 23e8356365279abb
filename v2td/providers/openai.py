"""A provider behind an API like OpenAI's: packs the recording, sends it in chunks, and puts the times back."""

from __future__ import annotations

import asyncio
import json
from typing import Self

from v2td.config import OpenAISettings
from v2td.errors import ProviderRefusedError
from v2td.jobs import Heard
from v2td.providers.openai_client import Client
from v2td.providers.openai_hearing import PATHS, Hearing
from v2td.providers.protocol import Capabilities, Recording

PACKED_AT_ONCE = 2


class OpenAIProvider:
    """Transcribes through an API; an async context manager.

    Models called gpt-… answer with plain JSON: each chunk is one segment then, and there are no words.
    """

    def __init__(self, settings: OpenAISettings) -> None:
        self._settings = settings
        self._client = Client(settings)
        self._packing = asyncio.Semaphore(PACKED_AT_ONCE)
        self._plain = settings.model.startswith("gpt-")

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *details: object) -> None:
        await self._client.__aexit__(*details)

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._settings.name

    @property
    def model(self) -> str:
        """The model that is asked for."""
        return self._settings.model

    @property
    def fingerprint(self) -> str:
        """All of its settings that change the text."""
        names = {"base_url", "model", "temperature", "codec", "max_bytes", "chunk_seconds"}
        return json.dumps(self._settings.model_dump(mode="json", include=names), sort_keys=True)

    @property
    def capabilities(self) -> Capabilities:
        """All languages, channels one by one; beams and the choice of languages are the API's own."""
        options = {"prompt", "hotwords", "condition_on_previous_text"}
        if self._plain:
            return Capabilities(options=frozenset(options), split=True)
        return Capabilities(tasks=frozenset(PATHS), options=frozenset({*options, "word_timestamps"}), split=True)

    @property
    def concurrency(self) -> int | None:
        """Jobs at once; by queue depth where the settings do not say."""
        return self._settings.concurrency or None

    async def health(self) -> str | None:
        """Say what is wrong with the API; None when it is well. At most a few seconds."""
        return await self._client.health()

    async def transcribe(self, recording: Recording) -> Heard:
        """Return what is said; see v2td.providers.Provider."""
        options = recording.options
        if options.task == "translate" and options.word_timestamps:
            raise ProviderRefusedError("the API has no times of words in translations")
        hearing = Hearing(self._settings, self._client, self._packing, recording, plain=self._plain)
        return await hearing.run()
