"""The decoder children, seen from the event loop: a recording goes in, windows come out as they are found."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Self

from v2td import failpoints
from v2td.child import Child, ChildDied
from v2td.config import SpeechSettings
from v2td.errors import ErrorClass, JobError, NoRoomError, ServiceError, TransientJobError
from v2td.jail import Jail, means
from v2td.jobs import SAMPLE_RATE, Audio, Channels, Window
from v2td.logs import get_logger
from v2td.scratch import Remover, can_never_fit, scratch_folder
from v2td.speech.decode_worker import DecodeRequest, Limits, Piece
from v2td.speech.decoder_slot import ChildReplaced, DecoderSlot, disk_error
from v2td.speech.demux import Accepted
from v2td.speech.speech import BYTES_PER_SAMPLE, Speech
from v2td.speech.vad import VadSettings
from v2td.speech.windows import ChannelPacker

log = get_logger(__name__)

CRASHES_FORGIVEN = 1  # a child may have died of something else; the second time it was this recording
PCM_PREFIX = "v2td-pcm-"
BLOCK_BYTES = 512  # what st_blocks counts
SLOTS_PER_DECODER = 4  # a decoder is some thirty times as fast as a slot of the model `base`


def decoder_count(settings: SpeechSettings, slots: int) -> int:
    """Return how many decoder children feed so many slots."""
    return settings.decoders or max(1, slots // SLOTS_PER_DECODER)


class Decoders:
    """The pool of decoder children; an async context manager.

    PCM lies in a folder of this process below `pcm_dir`, which is removed at the end. Recordings lie at or below
    `readable`: the children are locked in and read nothing else. Entering raises ServiceError when that is required
    and this machine lacks the means.
    """

    def __init__(self, settings: SpeechSettings, count: int, readable: Iterable[Path]) -> None:
        self._settings = settings
        self._count = count
        self._readable = tuple(readable)
        self._slots: list[DecoderSlot] = []
        self._tokens = itertools.count()
        self._remover = Remover()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            try:
                self._folder = stack.enter_context(scratch_folder(self._settings.pcm_dir, PCM_PREFIX))
            except OSError as error:
                raise ServiceError("make a folder for PCM", str(error), "set speech.pcm_dir to a tmpfs") from error
            confine = self._jail()
            self._slots = [
                DecoderSlot(f"decoder {number}", _limits(self._settings), confine, self._folder)
                for number in range(self._count)
            ]
            for slot in self._slots:
                stack.push_async_callback(slot.child.close)
            async with asyncio.TaskGroup() as group:
                for slot in self._slots:
                    group.create_task(slot.child.restart())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def children(self) -> dict[str, Child]:
        """Return the processes by name."""
        return {f"decoder-{number}": slot.child for number, slot in enumerate(self._slots)}

    def _jail(self) -> Callable[[], None] | None:
        """Return what locks a child in; None when the settings say that it is to be free."""
        if self._settings.jail == "off":
            return None
        found = means()
        if found.missing:
            if self._settings.jail == "required":
                raise ServiceError("lock decoders in", f"missing: {'; '.join(found.missing)}", "see speech.jail")
            log.warning("decoders are not fully locked in", missing=found.missing)
        noted = failpoints.log_file()
        return Jail(self._readable, (self._folder, *([noted] if noted else [])), found).enter

    @asynccontextmanager
    async def prepare(
        self,
        audio: Audio,
        channels: Channels = "mix",
        on_death: Callable[[], None] = lambda: None,
        priority: int = 5,
    ) -> AsyncIterator[Speech]:
        """Decode `audio` while its windows are taken from `Speech.windows`; "split": each channel on its own.

        `on_death` is called when a child died of this recording, and may raise the JobError that it is to end with.
        Of those that wait for a child the one with the least `priority` is next.

        Taking a window, and entering when the channels are split, raises JobError: not_audio, no_audio,
        format_forbidden, bad_params, too_long, truncated (by policy), decoder_crash; NoRoomError when pcm_dir is full
        of others, or read-only. Cancellation leaves the pool intact; the PCM file is removed in any case.
        """
        speech = Speech(self._folder / f"{next(self._tokens)}.pcm")
        try:
            speech.pcm.touch(mode=0o600)  # not in the child, which may come to it after we have left
        except OSError as error:
            raise disk_error(error) from error
        try:
            async with aclosing(self._windows(audio, speech, channels, on_death, priority)) as windows:
                # How many channels there are is known when the recording has been opened for its first window.
                first = await anext(windows, None) if channels == "split" else None
                async with aclosing(_chain(first, windows)) as speech.windows:
                    yield speech
        finally:
            self._remover.remove(speech.pcm)

    async def _windows(
        self, audio: Audio, speech: Speech, channels: Channels, on_death: Callable[[], None], priority: int
    ) -> AsyncGenerator[Window, None]:
        """Yield each window once, decoding from the start again when a child died on the way."""
        handed_out = crashes = refusals = 0
        finished = False
        while not finished:
            try:
                async with aclosing(self._decode(audio, speech, channels, priority)) as windows:
                    async for window in windows:
                        if window.index == handed_out:  # those before were handed out before the crash
                            handed_out += 1
                            speech.hand_out(window)
                            yield window
                finished = True
            except ChildReplaced:
                continue
            except NoRoomError:
                if can_never_fit(self._folder, speech.pcm.stat().st_blocks * BLOCK_BYTES):
                    reason = f"its PCM does not fit into speech.pcm_dir ({self._settings.pcm_dir})"
                    raise JobError(ErrorClass.TOO_LONG, reason) from None
                raise
            except PermissionError:
                refusals += 1
                if refusals > CRASHES_FORGIVEN:
                    reason = "a decoder may not read it, though v2td may: see speech.jail"
                    raise TransientJobError(ErrorClass.ACCESS_DENIED, reason) from None
            except ChildDied as death:
                if death.reason == "stopped":  # which no recording does
                    continue
                crashes += 1
                on_death()
                if crashes > CRASHES_FORGIVEN:
                    raise JobError(
                        ErrorClass.DECODER_CRASH, f"the decoder {death.reason} {crashes} times on this recording"
                    ) from death

    async def _decode(
        self, audio: Audio, speech: Speech, channels: Channels, priority: int
    ) -> AsyncGenerator[Window, None]:
        settings = self._settings
        split = channels == "split"
        speech.restart()
        token = next(self._tokens)
        slot = min(self._slots, key=lambda each: each.open)
        slot.open += 1
        try:
            request = self._request(audio, speech, split=split)
            channel_count, generation = await slot.open_recording(
                token, request, settings.deadline_seconds, priority=priority
            )
            speech.channels = min(channel_count, settings.max_channels)  # whatever a decoder that was taken over says
            packer = ChannelPacker(
                range(speech.channels) if split else [None],
                window=int(settings.window_seconds * SAMPLE_RATE),
                pad=int(settings.pad_seconds * SAMPLE_RATE),
            )
            piece: Piece | None = None
            while piece is None or not piece.last:
                asked = time.monotonic()
                searched = speech.channels if split else 1
                piece = await slot.next_piece(
                    token, generation, settings.deadline_seconds, channels=searched, before=piece, priority=priority
                )
                speech.decode_seconds += time.monotonic() - asked
                speech.count(piece)
                self._check_damage(piece)
                windows = packer.feed(piece.spans)
                if piece.last:
                    windows += packer.finish(piece.samples)
                for number, window in enumerate(windows):
                    starts = [each.pieces[0].start for each in windows[number + 1 :]]
                    speech.edge = min((packer.edge(piece.settled), *starts))
                    yield window
                speech.settle(packer.edge(piece.settled))  # silence has no windows, and takes memory, too
        finally:
            slot.open -= 1
            slot.abandon(token)

    def _check_damage(self, piece: Piece) -> None:
        if self._settings.truncated == "fail" and (piece.bad_packets or piece.missing_seconds):
            raise JobError(
                ErrorClass.TRUNCATED,
                f"{piece.bad_packets} packets do not decode, {piece.missing_seconds:.1f} s are missing",
            )

    def _request(self, audio: Audio, speech: Speech, *, split: bool) -> DecodeRequest:
        settings = self._settings
        return DecodeRequest(
            audio=audio.path,
            pcm=speech.pcm,
            split=split,
            accepted=Accepted(
                settings.max_audio_seconds, settings.min_sample_rate, settings.max_sample_rate, settings.max_channels
            ),
            piece_seconds=settings.piece_seconds,
            cpu_seconds=settings.decoder_cpu_seconds,
            vad=VadSettings(
                threshold=settings.vad_threshold,
                min_speech_seconds=settings.min_speech_seconds,
                min_silence_seconds=settings.min_silence_seconds,
                max_speech_seconds=settings.window_seconds - 2 * settings.pad_seconds,
            ),
        )


def _limits(settings: SpeechSettings) -> Limits:
    return Limits(
        memory_bytes=settings.decoder_memory_bytes,
        files=settings.decoder_files,
        file_bytes=int(settings.max_audio_seconds * SAMPLE_RATE) * BYTES_PER_SAMPLE * settings.max_channels,
    )


async def _chain(first: Window | None, rest: AsyncIterator[Window]) -> AsyncGenerator[Window, None]:
    if first is not None:
        yield first
    async for window in rest:
        yield window
