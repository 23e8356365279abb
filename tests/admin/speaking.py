"""A transcriber of real decoders and the real engine with the bundled model, behind a real server."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import openai

from tests.admin.serving import TOKEN, Daemon
from tests.engine.conftest import running_engine
from v2td.admin import OpenAIApi, Upload, serve
from v2td.bundled import recordings
from v2td.clock import to_recording
from v2td.config import AdminSettings, ApiSettings, SpeechSettings
from v2td.engine import Engine, Hearing
from v2td.engine.batch import WindowRequest, WindowResult
from v2td.fetch.spool import Incoming, Spool
from v2td.jobs import Audio, Coordinates, Job, Segment, Transcript
from v2td.speech import Decoders

SHORT, LONG, VI = (
    next(each for each in recordings() if each.language == language and (each.seconds > 30) is long)
    for language, long in (("en", False), ("en", True), ("vi", False))
)


class Told:
    """Takes uploads as the daemon does, and says what a test told it to: nothing before `go` is set."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self.asked: list[Upload] = []
        self.heard: list[bytes] = []
        self.cancelled = 0
        self.go = asyncio.Event()
        self.pieces: tuple[str, ...] = ()
        self.segments: tuple[Segment, ...] = (segment("Hello."),)
        self.error: Exception | None = None

    @property
    def files(self) -> list[Path]:
        """Uploads that are there."""
        return [path for path in self._spool.folder.iterdir() if path.name.startswith("tmp")]

    def models(self) -> Sequence[str]:
        return ("demo", "larger/one")

    def receive(self) -> AbstractContextManager[Incoming]:
        return self._spool.incoming()

    def discard(self, audio: Audio) -> None:
        self._spool.discard(audio.path)

    async def transcribe(self, upload: Upload) -> Transcript:
        self.asked.append(upload)
        self.heard.append(upload.audio.path.read_bytes())
        try:
            return await self.hear(upload)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def hear(self, upload: Upload) -> Transcript:
        if upload.on_text is not None:
            for piece in self.pieces:
                upload.on_text(piece)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return transcript(upload, self.segments)


class Speaking(Told):
    """What the daemon does with an upload, without its queues, rules and caches."""

    def __init__(self, spool: Spool, decoders: Decoders, engine: Engine) -> None:
        super().__init__(spool)
        self._decoders = decoders
        self._engine = engine

    async def hear(self, upload: Upload) -> Transcript:
        began = time.monotonic()

        def on_heard(_request: WindowRequest, result: WindowResult) -> None:  # one slot hears them in order
            if upload.on_text is not None:
                upload.on_text(" ".join(each.text.strip() for each in result.segments))

        async with self._decoders.prepare(upload.audio, upload.options.channels) as speech:
            recognition = await self._engine.transcribe(
                Hearing(
                    pcm=speech.pcm,
                    channels=speech.channels,
                    windows=speech.windows,
                    options=upload.options,
                    priority=0,
                    began=began,
                    on_progress=lambda: None,
                    on_done=speech.release,
                    on_heard=on_heard,
                )
            )
        heard = (to_recording(each, window) for window, result in recognition.windows for each in result.segments)
        segments = tuple(sorted(heard, key=lambda segment: segment.start))
        return transcript(upload, segments, language=recognition.language, seconds=speech.audio_seconds)


def segment(text: str, start: float = 0.0, **more: Any) -> Segment:
    """One second of text."""
    return Segment(start, start + 1, text, -0.25, 0.5, 1.25, 0.0, **more)


def transcript(
    upload: Upload, segments: tuple[Segment, ...], *, language: str | None = "en", seconds: float = 2.5
) -> Transcript:
    """A transcript of an upload."""
    return Transcript(
        job=Job(Coordinates("api", "api", 0, 0, 0), "upload:", upload.options),
        audio_sha256=upload.audio.sha256,
        audio_bytes=upload.audio.size_bytes,
        audio_seconds=seconds,
        speech_seconds=seconds,
        covered_seconds=seconds,
        language=language,
        language_probability=None,
        segments=segments,
        provider="local",
        model="demo",
        truncated=False,
        duration_seconds=0.5,
        timings={},
    )


@asynccontextmanager
async def speaking(folder: Path) -> AsyncIterator[Speaking]:
    """Open all that transcribes."""
    with Spool(folder) as spool:
        async with (
            Decoders(SpeechSettings(pcm_dir=folder), 1, [spool.folder]) as decoders,
            running_engine() as engine,
        ):
            yield Speaking(spool, decoders, engine)


@asynccontextmanager
async def api(daemon: Daemon, admin: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[str]:
    """Serve the API; its URL."""
    given = AdminSettings.model_validate({"port": 0, "token": TOKEN, "requests_per_second": 1000, **(admin or {})})
    view = daemon.view()
    assert daemon.transcriber is not None
    table = OpenAIApi(daemon.transcriber, view.ready, ApiSettings(openai=True, **settings), given)
    async with serve(given, view, [table]) as url:
        yield url


@asynccontextmanager
async def client_of(url: str, **options: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client."""
    options = {"api_key": TOKEN, "max_retries": 0, **options}
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", **options) as client:
        yield client
