"""whisper.cpp in a child process of ours, pinned, and replaced when it dies: a bad tensor ends the whole process."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self, TypeVar

from v2td.child import Child, ChildDied
from v2td.config import WhisperCppSettings
from v2td.config.languages import LANGUAGES
from v2td.errors import ConfigError, ErrorClass, JobError, ProviderFailedError, ServiceError
from v2td.jobs import Heard, Segment, Word
from v2td.limit import PriorityLimit
from v2td.logs import get_logger
from v2td.machine import Machine, read_machine
from v2td.providers import whisper_cpp_worker as worker
from v2td.providers.ggml_file import GgmlFile, read_ggml
from v2td.providers.protocol import EVERYTHING, Capabilities, Recording
from v2td.providers.whisper_cpp_hearing import ENGLISH, Listening
from v2td.providers.whisper_cpp_worker import WindowRequest, WindowSound, WindowText

log = get_logger(__name__)

T = TypeVar("T")
SYSTEM_CPUS = 2  # left to the rest of the machine, as in the second seed's table: 8 cores → 6 threads, 10 → 8, 12 → 10
NICE = 5  # like slots that share their CPUs with the loop
DEATHS_FORGIVEN = 1  # of a window: something else may have killed the process
ANSWERS = (Segment, Word, WindowText)
CANTONESE = "yue"
LAST = 9  # the priority of who has no job


class WhisperCppChild:
    """A model of whisper.cpp, ready when it is loaded; one window at a time, those of urgent jobs first.

    ConfigError when it may not use its CPUs, ServiceError when the model does not load.
    """

    def __init__(self, settings: WhisperCppSettings) -> None:
        assert settings.model is not None, "it is the server's form that has none"
        assert settings.known_model is not None
        self.name = settings.name
        self.model = settings.known_model
        self.concurrency = settings.concurrency or 1
        self._path = settings.model
        self._settings = settings
        self._file: GgmlFile | None = None
        threads, cpus = place(settings, read_machine())
        self._child = Child(
            f"whisper.cpp {self.name}",
            worker.setup,
            (self._path, cpus, threads),
            cpus=cpus,
            nice=NICE,
            answers=ANSWERS,
        )
        self._turn = PriorityLimit(1)
        self._reviving: asyncio.Task[None] | None = None
        self._fault: str | None = None

    @property
    def fingerprint(self) -> str:
        """The file's contents, and the beams; known when it is open."""
        told = [self._file.digest if self._file else str(self._path), self._settings.beam_size]
        return f"whisper_cpp {hashlib.sha256(json.dumps(told).encode()).hexdigest()}"

    @property
    def capabilities(self) -> Capabilities:
        """What its model can; everything that a model of Whisper's may, as long as it is not open."""
        if self._file is None or self._file.cantonese:
            return Capabilities(frozenset({"transcribe", "translate"}), None, EVERYTHING, split=True)
        if not self._file.multilingual:
            return Capabilities(frozenset({"transcribe"}), frozenset({ENGLISH}), EVERYTHING, split=True)
        languages = frozenset(LANGUAGES) - {CANTONESE}
        return Capabilities(frozenset({"transcribe", "translate"}), languages, EVERYTHING, split=True)

    @property
    def pid(self) -> int | None:
        """The process that holds the model, while it is ready."""
        return self._child.pid

    async def __aenter__(self) -> Self:
        await self._start(self._child.restart)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reviving is not None:
            self._reviving.cancel()
            await asyncio.wait({self._reviving})
        await self._child.close()

    async def transcribe(self, recording: Recording) -> Heard:
        """Return what is said. Cancellation stops the window under way at its next step, before another one begins."""
        assert self._file is not None, "it is open"
        listening = Listening(
            recording,
            self,
            model=self.model,
            beam_size=self._settings.beam_size,
            multilingual=self._file.multilingual,
        )
        return await listening.heard()

    async def detect(self, recording: Recording, sound: WindowSound) -> tuple[tuple[str, float], ...]:
        """Return the likeliest languages of a window."""
        return await self._call(recording, sound, worker.detect, sound, recording.options.languages)

    async def hear(self, recording: Recording, request: WindowRequest) -> WindowText:
        """Return what is said in a window."""
        return await self._call(recording, request.sound, worker.hear, request)

    async def health(self) -> str | None:
        """Say why its process could not be brought up again, which is tried whenever it is not there."""
        if not self._child.alive and (self._reviving is None or self._reviving.done()):
            self._reviving = asyncio.create_task(self._revive())
        return self._fault

    async def _call(self, recording: Recording, sound: WindowSound, function: Callable[..., T], *args: Any) -> T:
        """Return the child's answer about a window; a window whose process dies gets another one, once."""
        deaths = 0
        while True:
            try:
                async with self._turn.inside(recording.priority):
                    await self._make_ready()
                    recording.on_progress()
                    answer = await self._ask(function, *args)
                    recording.on_progress()
                    return answer
            except InterruptedError:
                continue  # it was meant for the window before, of a job that left
            except ChildDied as death:
                index = sound.window.index
                log.warning("whisper.cpp ended", provider=self.name, reason=death.reason, window=index)
                if death.reason == "deadline":
                    seconds = self._settings.window_seconds
                    raise ProviderFailedError(f"window {index} took longer than {seconds:g} s") from death
                deaths += death.reason != "stopped"  # which no window does
                if deaths > DEATHS_FORGIVEN:
                    recording.on_death()
                    reason = f"its process {death.reason} {deaths} times on window {index}"
                    raise ProviderFailedError(reason) from death

    async def _ask(self, function: Callable[..., T], *args: Any) -> T:
        try:
            return await self._child.call(function, *args, deadline_seconds=self._settings.window_seconds)
        except asyncio.CancelledError:
            if self._child.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(self._child.pid, signal.SIGUSR1)
            raise
        except ChildDied:
            self._child.kill()  # it may not be quite dead, and look alive
            raise
        except FileNotFoundError as error:
            raise JobError(ErrorClass.INFERENCE_CRASH, "its PCM is gone from speech.pcm_dir") from error
        except RuntimeError as error:
            raise ProviderFailedError(str(error)) from error

    async def _make_ready(self) -> None:
        if not self._child.alive:
            try:
                await self._start(self._child.revive)
            except ServiceError as error:
                self._fault = str(error)
                raise ProviderFailedError(self._fault) from error
            self._fault = None

    async def _revive(self) -> None:
        async with self._turn.inside(LAST):
            with suppress(ProviderFailedError):  # health() tells
                await self._make_ready()

    async def _start(self, start: Callable[[], Any]) -> None:
        self._file = await asyncio.to_thread(read_ggml, self._path)  # each time: it may be another one by now
        try:
            await start()
        except ServiceError as error:
            hint = error.hint or "is it a GGML file of whisper.cpp's, and is there memory for it?"
            raise ServiceError(f"load {self._path}", error.detail, hint) from error
        log.info("whisper.cpp is ready", provider=self.name, model=self.model, pid=self.pid)


def place(settings: WhisperCppSettings, machine: Machine) -> tuple[int, tuple[int, ...]]:
    """Return the number of threads, and the CPUs that they are pinned to, of those that we may use (pure)."""
    usable = sorted(machine.cpus, key=lambda cpu: (cpu.twin, -cpu.capacity, cpu.node, cpu.number))  # cores, fast ones
    numbers = [cpu.number for cpu in usable]
    if missing := sorted(set(settings.cpus) - set(numbers)):
        raise ConfigError("providers.whisper_cpp.cpus", str(missing), f"we may use {sorted(numbers)} alone")
    if settings.cpus:
        return settings.threads or len(settings.cpus), settings.cpus
    cores = min(machine.cores, math.ceil(machine.quota or machine.cores))
    threads = settings.threads or max(1, cores - SYSTEM_CPUS)
    return threads, tuple(sorted(numbers[:threads]))
