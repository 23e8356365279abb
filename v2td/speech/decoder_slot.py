"""One decoder child, as the event loop speaks to it; what it answers is not trusted."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from v2td import failpoints, metrics
from v2td.child import Child, ChildDied
from v2td.errors import ErrorClass, JobError, NoRoomError, ServiceError
from v2td.jobs import Span
from v2td.limit import PriorityLimit
from v2td.logs import get_logger
from v2td.scratch import NO_ROOM
from v2td.speech import decode_worker
from v2td.speech.decode_worker import TOO_MANY, DecodeRequest, Limits, Piece

T = TypeVar("T")
log = get_logger(__name__)

NICE = 5  # decoders run ahead of the engine; they must not take its cores from it
ANY_GENERATION = -1
ANSWERS = (Piece, Span, JobError, ErrorClass, failpoints.FailpointError)
TOO_MANY_FILES = frozenset({errno.EMFILE, errno.ENFILE})
PROBE = b"v2td"
REFUSALS = frozenset(
    {
        ErrorClass.NOT_AUDIO,
        ErrorClass.NO_AUDIO,
        ErrorClass.FORMAT_FORBIDDEN,
        ErrorClass.BAD_PARAMS,
        ErrorClass.TOO_LONG,
        ErrorClass.DECODER_CRASH,
    }
)
MAX_REASON = 500  # characters


class UnbelievableError(Exception):
    """An answer that no decoder gives."""


class ChildReplaced(Exception):  # noqa: N818 (an event, not a fault: another recording killed the child)
    """The child that had this recording open is gone, through no fault of this recording."""


class DecoderSlot:
    """One decoder child, which answers one call at a time, the most urgent first; it writes below `pcm_folder`.

    A call raises JobError; ServiceError where the disk or tmpfs of `pcm_folder` is at fault; PermissionError where the
    child may not read the recording, and ChildDied where it died or answers what no decoder does: a fresh one is there.
    """

    def __init__(self, name: str, limits: Limits, confine: Callable[[], None] | None, pcm_folder: Path) -> None:
        self.child = Child(name, decode_worker.setup, (limits,), nice=NICE, confine=confine, answers=ANSWERS)
        self.open = 0  # recordings, for choosing the least loaded
        self._pcm_folder = pcm_folder
        self._abandoned: list[int] = []
        self._turn = PriorityLimit(1)

    async def open_recording(
        self, token: int, request: DecodeRequest, deadline: float, *, priority: int
    ) -> tuple[int, int]:
        """Return the number of channels, and the generation of the child that has it open now."""
        abandoned, self._abandoned = tuple(self._abandoned), []
        channels = await self._call(
            ANY_GENERATION, deadline, _is_count, priority, decode_worker.open_recording, token, request, abandoned
        )
        return channels, self.child.generation

    async def next_piece(
        self, token: int, generation: int, deadline: float, *, channels: int, before: Piece | None, priority: int
    ) -> Piece:
        """Return the piece behind `before` of a recording that the child of this generation has open.

        ChildReplaced when it has not. `channels`: how many are searched.
        """

        def believable(answer: object) -> bool:
            return type(answer) is Piece and answer.plausible(channels, before)

        return await self._call(generation, deadline, believable, priority, decode_worker.next_piece, token)

    def abandon(self, token: int) -> None:
        """Have the child forget a recording when it is spoken to next."""
        self._abandoned.append(token)

    async def _call(
        self,
        generation: int,
        deadline: float,
        believable: Callable[[object], bool],
        priority: int,
        function: Callable[..., T],
        *args: Any,
    ) -> T:
        async with self._turn.inside(priority):
            if generation not in (ANY_GENERATION, self.child.generation):
                raise ChildReplaced
            if self.child.pid is None:  # whose recording killed it was cancelled while it was brought up again
                await self.child.revive()
            try:
                answer = await self.child.call(function, *args, deadline_seconds=deadline)
                if believable(answer):
                    return answer
                raise UnbelievableError
            except ChildDied as death:
                await self._replace(death)
                raise
            except PermissionError:  # a folder that was mounted again: a child that enters now may read it
                await self.child.revive()
                raise
            except Exception as error:
                if isinstance(error, JobError) and (refusal := _refusal(error)) is not None:
                    raise refusal from None
                if isinstance(error, OSError) and (fault := self._disk_fault(error)) is not None:
                    raise fault from error
                log.warning("decoder failed", decoder=self.child.name, error=type(error).__name__)
                self.child.kill()
                replaced = ChildDied("died")
                await self._replace(replaced)
                raise replaced from error

    async def _replace(self, death: ChildDied) -> None:
        metrics.DECODER_RESTARTS.labels(death.reason).inc()
        log.warning("decoder restarted", decoder=self.child.name, reason=death.reason)
        await self.child.revive()

    def _disk_fault(self, error: OSError) -> ServiceError | None:
        """Return what the error means to us, None when it is the recording's; the child's word alone is not enough."""
        if error.errno in NO_ROOM | TOO_MANY_FILES:  # passes by itself: nobody ends for it
            return disk_error(error)
        try:
            with tempfile.TemporaryFile(dir=self._pcm_folder, buffering=0) as file:
                file.write(PROBE)
        except OSError as ours:
            return disk_error(ours)
        return None


def _is_count(answer: object) -> bool:
    return type(answer) is int and 1 <= answer < TOO_MANY


def _refusal(error: JobError) -> JobError | None:
    """Return why a recording is refused, in words that fit a row, a header and a log; None when no decoder says so."""
    error_class, reason = getattr(error, "error_class", None), getattr(error, "reason", None)
    if type(error_class) is not ErrorClass or error_class not in REFUSALS or type(reason) is not str:
        return None
    return JobError(
        error_class,
        "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in reason[:MAX_REASON]),
    )


def disk_error(error: OSError) -> ServiceError:
    """Return what an error of the disk or tmpfs below speech.pcm_dir means to us; it is no recording's fault."""
    if error.errno in TOO_MANY_FILES:
        return NoRoomError("decode", str(error), "raise speech.decoder_files")
    if error.errno in NO_ROOM:
        return NoRoomError("decode", str(error), "make speech.pcm_dir larger, or pipeline.max_prepared smaller")
    return ServiceError("decode", str(error), "see speech.pcm_dir")
