"""What the main thread of a process does, looked at again and again by a thread of its own: a profile without tools.

A child starts that thread and forgets it; it sleeps on a pipe until the parent asks. What comes back is not trusted:
it is bounded, checked, and holds names of functions and files only, in harmless characters.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from dataclasses import dataclass
from itertools import count
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

DEPTH = 200  # innermost frames of a stack
MAX_ANSWER_BYTES = 4_000_000  # a busy minute takes some 200 kB
MAX_SAMPLES = 60_000
MAX_COMMAND_BYTES = 1000
GRACE_SECONDS = 10.0  # for an answer to come when the time is over: the lock may be held for long
SHORTEST_INTERVAL = 0.001

_HARMLESS = re.compile(r"[^\w .,:()/+@=-]")  # in particular no < and no control characters
_BRACKETS = str.maketrans("<>", "()")


class SamplingError(Exception):
    """No samples could be had; says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a thread or a task is: a line of a function of a file."""

    function: str
    file: str
    line: int
    first_line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


Stack = tuple[Place, ...]  # the outermost first


@dataclass(frozen=True, slots=True)
class Samples:
    """One stack for each look, `interval` seconds apart as far as the process allowed, `seconds` in all."""

    stacks: tuple[Stack, ...]
    interval: float
    seconds: float


def place_of(frame: FrameType, line: int | None = None) -> Place:
    """Return where a frame is; no values of its variables."""
    code = frame.f_code
    at = frame.f_lineno if line is None else line
    return _harmless(code.co_qualname, code.co_filename, at or 0, code.co_firstlineno)


def stack_of(frame: FrameType | None) -> Stack:
    """Return the stack that ends with a frame."""
    places: list[Place] = []
    while frame is not None and len(places) < DEPTH:
        places.append(place_of(frame))
        frame = frame.f_back
    return tuple(reversed(places))


def main_stack() -> Stack:
    """Return where the main thread of this process is; to be called by another one."""
    ident = threading.main_thread().ident
    return stack_of(sys._current_frames().get(ident) if ident is not None else None)  # noqa: SLF001 (its documented name)


@dataclass(frozen=True, slots=True)
class Ears:
    """A child's ends of the pipes to its sampler."""

    commands: Connection
    answers: Connection


def listen(ears: Ears) -> None:
    """Start the thread that looks when it is asked; where there can be none, nobody is answered."""
    with contextlib.suppress(RuntimeError):
        threading.Thread(target=_answer_all, args=(ears,), name="sampler", daemon=True).start()


class Sampler:
    """The parent's side: asks a child's sampler. `ears` go to the child; then `child_has_them` is to be called."""

    def __init__(self) -> None:
        theirs, self._commands = Pipe(duplex=False)
        self._answers, ours = Pipe(duplex=False)
        self.ears = Ears(theirs, ours)
        self._numbers = count()

    def child_has_them(self) -> None:
        """Let go of the child's ends, so that the pipes end with the child."""
        self.ears.commands.close()
        self.ears.answers.close()

    def close(self) -> None:
        """Let go of all ends; the child's thread ends. Doing it twice is no error."""
        self.child_has_them()
        self._commands.close()
        self._answers.close()

    async def sample(self, seconds: float, interval: float) -> Samples:
        """Return what the child's main thread did for so long; 0 seconds: what it does now.

        Raises SamplingError when it does not answer, or not sensibly. One call at a time. A cancellation leaves the
        child sampling for the rest of the time, whose answer is not taken for the next one's.
        """
        number = next(self._numbers)
        command = {"number": number, "seconds": seconds, "interval": max(interval, SHORTEST_INTERVAL)}
        try:
            self._commands.send_bytes(json.dumps(command).encode())
            pipe = os.fdopen(os.dup(self._answers.fileno()), "rb", buffering=0)
        except OSError as error:
            raise SamplingError("the process has ended") from error
        reader = asyncio.StreamReader(limit=MAX_ANSWER_BYTES)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            async with asyncio.timeout(seconds + GRACE_SECONDS):
                while True:
                    line = await reader.readline()
                    if not line.endswith(b"\n"):
                        raise SamplingError("the process has ended")
                    if (found := await asyncio.to_thread(_parsed, line, number)) is not None:
                        return found
        except TimeoutError:
            raise SamplingError("its sampler does not answer: it may be stopped, or hold the interpreter") from None
        except ValueError as error:
            raise SamplingError("its answer makes no sense") from error
        finally:
            transport.close()


def _answer_all(ears: Ears) -> None:
    """Answer until the parent is gone."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are the main thread's
    with contextlib.suppress(EOFError, OSError):
        while True:
            asked = json.loads(ears.commands.recv_bytes(MAX_COMMAND_BYTES))
            answer = memoryview(json.dumps(_looked(**asked)).encode() + b"\n")
            while answer:
                answer = answer[os.write(ears.answers.fileno(), answer) :]


def _looked(number: int, seconds: float, interval: float) -> dict[str, Any]:
    """Look at the main thread for so long; return each place and each stack once, and which was seen when."""
    stacks: dict[Stack, int] = {}
    seen: list[int] = []
    began = time.monotonic()
    while True:
        stack = main_stack()
        seen.append(stacks.setdefault(stack, len(stacks)))
        lasted = time.monotonic() - began
        if lasted >= seconds or len(seen) >= MAX_SAMPLES:
            break
        time.sleep(min(interval, seconds - lasted))
    places: dict[Place, int] = {}
    told = [[places.setdefault(place, len(places)) for place in stack] for stack in stacks]
    named = [[each.function, each.file, each.line, each.first_line] for each in places]
    return {"number": number, "interval": interval, "seconds": lasted, "places": named, "stacks": told, "seen": seen}


def _parsed(line: bytes, number: int) -> Samples | None:
    """Return an answer's samples; None for another number's. Raises ValueError: the child may be anybody's by now."""
    try:
        answer = json.loads(line)
        if answer["number"] != number:
            return None
        places = [_harmless(*place) for place in answer["places"]]
        stacks = [tuple(places[each] for each in stack[:DEPTH]) for stack in answer["stacks"]]
        seen = tuple(stacks[each] for each in answer["seen"][:MAX_SAMPLES])
        return Samples(seen, float(answer["interval"]), float(answer["seconds"]))
    except (TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _harmless(function: str, file: str, line: int, first_line: int) -> Place:
    """Return a place whose words can stand in HTML, JSON and on a terminal."""
    function, file = (_HARMLESS.sub("?", each[:300].translate(_BRACKETS)) for each in (function, file))
    return Place(function, file, int(line), int(first_line))
