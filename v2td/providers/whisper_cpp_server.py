"""whisper.cpp's own HTTP server: windows go up as WAV, as many at once as it may have jobs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
from datetime import UTC, datetime
from typing import Any, Self

import aiohttp
import numpy as np
from numpy.typing import NDArray

from v2td.config import WhisperCppSettings
from v2td.errors import ErrorClass, JobError, ProviderFailedError
from v2td.jobs import SAMPLE_RATE, Heard
from v2td.limit import PriorityLimit
from v2td.logs import get_logger
from v2td.providers.protocol import EVERYTHING, Capabilities, Recording
from v2td.providers.whisper_cpp_answer import likely_languages, segments_of
from v2td.providers.whisper_cpp_hearing import ENGLISH, Listening
from v2td.providers.whisper_cpp_worker import MIN_SAMPLES, WindowRequest, WindowSound, WindowText, read_window
from v2td.retry import retry_after_seconds

log = get_logger(__name__)

HEALTH_SECONDS = 5.0
CONNECT_SECONDS = 10.0
MAX_ANSWER_BYTES = 16_000_000  # of a window's text
WHOLE_SEGMENTS = 1_000_000  # characters: the server divides longer ones in the middle of words
TOLD_BYTES = 200  # of what an unhappy server says
PROBE_LANGUAGE, ENGLISH_ALONE = "vi", ("english", "en")  # what a model that knows no other hears, whatever it is told
UNNAMED = "whisper.cpp"  # the server tells nobody what its model is called
SAMPLE_BYTES = 2


class WhisperCppServer:
    """A server of whisper.cpp's. It may come later than we, and go: `health` and ProviderFailedError tell."""

    def __init__(self, settings: WhisperCppSettings) -> None:
        assert settings.server_url is not None, "it is the child's form that has none"
        self.name = settings.name
        self.model = settings.known_model
        self.concurrency = settings.concurrency or 1
        self._url = settings.server_url.rstrip("/")
        self._settings = settings
        self._turn = PriorityLimit(self.concurrency)
        self._multilingual: bool | None = None  # as long as nobody has asked
        self._session: aiohttp.ClientSession | None = None

    @property
    def fingerprint(self) -> str:
        """The model, as far as it has a name, and the beams."""
        told = [self.model or self._url, self._settings.beam_size]
        return f"whisper_cpp_server {hashlib.sha256(json.dumps(told).encode()).hexdigest()}"

    @property
    def capabilities(self) -> Capabilities:
        """What its model can; everything that a model of Whisper's may, as long as it has not been asked."""
        if self._multilingual is False:
            return Capabilities(frozenset({"transcribe"}), frozenset({ENGLISH}), EVERYTHING, split=True)
        return Capabilities(frozenset({"transcribe", "translate"}), None, EVERYTHING, split=True)

    async def __aenter__(self) -> Self:
        # It closes idle connections after a few seconds: a new one for each window is never one that has just gone.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True),
            timeout=aiohttp.ClientTimeout(total=self._settings.window_seconds, sock_connect=CONNECT_SECONDS),
        )
        try:
            await self._probe()
        except ProviderFailedError as error:
            log.warning("whisper.cpp's server is not there yet", provider=self.name, reason=error.reason)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def transcribe(self, recording: Recording) -> Heard:
        """Return what is said. Cancellation closes the connection, at which the server leaves the window, too."""
        async with self._turn.inside(recording.priority):
            multilingual = await self._probe()
        listening = Listening(
            recording,
            self,
            model=self.model or UNNAMED,
            beam_size=self._settings.beam_size,
            multilingual=multilingual,
        )
        return await listening.heard()

    async def detect(self, recording: Recording, sound: WindowSound) -> tuple[tuple[str, float], ...]:
        """Return the likeliest languages of a window."""
        answer = await self._ask(recording, sound, {"detect_language": "true"})
        return likely_languages(answer, recording.options.languages)

    async def hear(self, recording: Recording, request: WindowRequest) -> WindowText:
        """Return what is said in a window."""
        answer = await self._ask(
            recording,
            request.sound,
            {
                "language": request.language,
                "translate": _word(request.task == "translate"),
                "beam_size": str(request.beam_size),
                "prompt": request.prompt,
                "token_timestamps": _word(request.word_timestamps),
                "no_language_probabilities": "true",
            },
        )
        if request.language != ENGLISH and answer.get("language") in ENGLISH_ALONE:  # and so it heard English
            self._multilingual = None
            raise ProviderFailedError(f"{self._url} has another model than before, which knows English alone")
        return WindowText(segments_of(answer, request), request.language)

    async def health(self) -> str | None:
        """Return None when it says that its model is loaded."""
        timeout = aiohttp.ClientTimeout(total=HEALTH_SECONDS)
        try:
            async with self._opened.get(f"{self._url}/health", timeout=timeout, allow_redirects=False) as response:
                said = await _text(response)
                return None if response.status == 200 else f"{self._url}/health answers {response.status}: {said}"
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._forget(error)
            return f"{self._url}/health: {_reason(error)}"

    @property
    def _opened(self) -> aiohttp.ClientSession:
        assert self._session is not None, "it is open"
        return self._session

    async def _probe(self) -> bool:
        """Return whether its model knows more than English; it is asked once while it is there, with some silence."""
        if self._multilingual is None:
            silence = wav(np.zeros(MIN_SAMPLES, np.float32))
            fields = {"language": PROBE_LANGUAGE, "beam_size": "1", "no_language_probabilities": "true"}
            self._multilingual = (await self._post(silence, fields)).get("language") not in ENGLISH_ALONE
        return self._multilingual

    def _forget(self, error: Exception) -> None:
        """Ask for its model again when the server is gone: what comes back may have another one."""
        if isinstance(error, aiohttp.ClientConnectionError):
            self._multilingual = None

    async def _ask(self, recording: Recording, sound: WindowSound, fields: dict[str, str]) -> dict[str, Any]:
        """Return the server's answer about a window."""
        try:
            content = await asyncio.to_thread(lambda: wav(read_window(sound)))
        except FileNotFoundError as error:
            raise JobError(ErrorClass.INFERENCE_CRASH, "its PCM is gone from speech.pcm_dir") from error
        async with self._turn.inside(recording.priority):
            recording.on_progress()
            answer = await self._post(content, fields)
            recording.on_progress()
            return answer

    async def _post(self, content: bytes, fields: dict[str, str]) -> dict[str, Any]:
        form = aiohttp.FormData()
        form.add_field("file", content, filename="window.wav", content_type="audio/wav")
        common = {
            "response_format": "verbose_json",
            "suppress_nst": "true",  # as Whisper itself: no brackets, no notes
            "max_len": str(WHOLE_SEGMENTS),
        }
        for name, value in (common | fields).items():
            form.add_field(name, value)
        url = f"{self._url}/inference"
        try:
            async with self._opened.post(url, data=form, allow_redirects=False) as response:
                if response.status != 200:
                    wait = retry_after_seconds(response.headers.get("Retry-After"), datetime.now(UTC))
                    raise ProviderFailedError(f"{url} answers {response.status}: {await _text(response)}", wait)
                body = await _body(response, MAX_ANSWER_BYTES)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._forget(error)
            raise ProviderFailedError(f"{url}: {_reason(error)}") from error
        try:
            answer = json.loads(body)
        except ValueError as error:
            raise ProviderFailedError(f"{url} answers no JSON: {body[:TOLD_BYTES]!r}") from error
        if not isinstance(answer, dict):
            raise ProviderFailedError(f"{url} answers {type(answer).__name__}, and no object")
        return answer


def wav(sound: NDArray[np.float32]) -> bytes:
    """Return sound in [-1, 1) as a WAV file of one channel."""
    samples = np.clip(np.round(sound * 32768), -32768, 32767).astype("<i2").tobytes()
    rate = SAMPLE_RATE * SAMPLE_BYTES
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE, rate, SAMPLE_BYTES, 8 * SAMPLE_BYTES)
    chunks = b"WAVE" + head + struct.pack("<4sI", b"data", len(samples)) + samples
    return struct.pack("<4sI", b"RIFF", len(chunks)) + chunks


async def _body(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Return the body, cut off where it is larger than it may be."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > most:
            break
    return bytes(body[:most])


async def _text(response: aiohttp.ClientResponse) -> str:
    return (await _body(response, TOLD_BYTES)).decode(errors="replace").strip()


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__


def _word(true: bool) -> str:
    return "true" if true else "false"
