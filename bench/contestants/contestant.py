"""What every contestant is, seen from the benchmark: a process tree that hears clips."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from bench.corpus import ROOT, Clip
from v2td.child import PR_SET_PDEATHSIG

STOP_SECONDS = 20.0
SAMPLE_SECONDS = 0.5
# What a user has set for a v2td of their own, or for their database, is not for the contestants.
FOREIGN_VARIABLES = ("V2TD_", "STT_", "WHISPER_", "DB_", "PG", "NOTIFY_SOCKET", "WATCHDOG_", "OMP_")

_LIBC = ctypes.CDLL(None)  # loaded here: between fork and exec nothing may be


class ContestError(Exception):
    """A contestant that did not do its work: the run is not a result."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One run: all clips, begun together.

    `seconds` is the wall time from the first clip taken to the last text there (durable, where there is a database);
    `finished` is the same for each clip, by its name. CPU seconds and the peak of the resident memory are those of
    the contestant's processes, without broker and database.
    """

    seconds: float
    finished: dict[str, float]
    texts: dict[str, str]
    cpu_seconds: float
    peak_rss_bytes: int


class Contestant(Protocol):
    """Ready to hear, any number of times."""

    @property
    def name(self) -> str:
        """How tables and keys call it."""

    async def hear(self, clips: Sequence[Clip]) -> Heard:
        """Return when the text of every clip is there; ContestError when one is not to come."""


class ProcessTree:
    """A contestant's process and all that descend from it."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log
        self._root = psutil.Process(process.pid)
        self._peak = 0

    def raise_if_dead(self) -> None:
        """ContestError with the end of its log when it has ended."""
        if self.process.returncode is not None:
            raise ContestError(f"it ended with {self.process.returncode}:\n{self.last_words()}")

    def last_words(self) -> str:
        """Return the end of its log."""
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])

    def cpu_seconds(self) -> float:
        """Return the CPU time that its living processes have used so far."""
        return tree_cpu_seconds(self._root)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Sample its memory meanwhile, and leave the block with ContestError when it ends."""
        self._peak = 0
        watching = asyncio.current_task()
        assert watching is not None

        async def watch() -> None:
            while self.process.returncode is None:
                self._peak = max(self._peak, _tree_rss_bytes(self._root))
                await asyncio.sleep(SAMPLE_SECONDS)
            watching.cancel()

        task = asyncio.create_task(watch())
        try:
            yield
        except asyncio.CancelledError:
            self.raise_if_dead()
            raise
        finally:
            task.cancel()

    @property
    def peak_rss_bytes(self) -> int:
        """The highest sum of resident memory seen since `watched` was entered; shared pages count once per process."""
        return self._peak


def tree_cpu_seconds(root: psutil.Process) -> float:
    """Return the CPU time of a process and its living descendants so far."""
    total = 0.0
    for process in _with_descendants(root):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _tree_rss_bytes(root: psutil.Process) -> int:
    total = 0
    for process in _with_descendants(root):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


def _with_descendants(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _die_with_parent() -> None:
    """Have the kernel end this process with the benchmark, whatever ends that."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@asynccontextmanager
async def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, *, pipes: bool = False
) -> AsyncIterator[ProcessTree]:
    """Run a command with its errors (and its output, unless `pipes`) in `log`; ended by SIGTERM at the end, or with us.

    Enter it in the main thread: the kernel counts the death of the starting thread as that of the parent.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_VARIABLES)}
    pipe = asyncio.subprocess.PIPE
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=pipe if pipes else asyncio.subprocess.DEVNULL,
            stdout=pipe if pipes else output,
            stderr=output,
            cwd=ROOT,
            env=own | dict(environment or {}),
            preexec_fn=_die_with_parent,
            limit=1 << 24,  # bytes of one line of its output
        )
    try:
        yield ProcessTree(process, log)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
