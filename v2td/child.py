"""A disposable child process: one single-worker ProcessPoolExecutor, spawned, pinned, dying with its parent.

A shared pool fails every queued future when one worker dies; one executor per child breaks only itself. A
running call cannot be cancelled, so a deadline is kept by killing the process. `max_tasks_per_child` deadlocks
(cpython#115634): a child is recycled by replacing its executor.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import ModuleType
from typing import Any, Literal, Self, TypeVar

import psutil

from v2td.answers import accept_only, without_secrets
from v2td.errors import JobError, ServiceError
from v2td.sampling import Ears, Sampler, Samples, SamplingError, listen

T = TypeVar("T")
PR_SET_PDEATHSIG = 1
REVIVALS = 3
WATCH_SECONDS = 1.0
STOPPED_LOOKS = 3  # a machine that wakes up may let us run before the child
NO_MEMORY = ("bad_alloc", "out of memory", "Cannot allocate memory")

DeathReason = Literal["died", "deadline", "stopped", "memory"]


def lacks_memory(error: Exception) -> bool:
    """Whether a call failed for want of memory, a GPU's included, in whatever words: C++ libraries have their own."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return not isinstance(error, JobError) and any(word in str(error) for word in NO_MEMORY)


class ChildDied(Exception):  # noqa: N818 (an event of the child, not a fault of the caller)
    """The process ended under a call (`died`) or was killed.

    Killed because the call outlived its `deadline`, because somebody `stopped` it (SIGSTOP), or because it could not
    get the `memory` that the call took and may be short of it from now on.
    """

    def __init__(self, reason: DeathReason) -> None:
        super().__init__(reason)
        self.reason: DeathReason = reason


def enter(cpus: Sequence[int], nice: int, parent_pid: int, confine: Callable[[], None] | None, ears: Ears) -> None:
    """Make this process a well-behaved child; runs in the child before anything else.

    It is killed by the kernel when the parent goes, ignores Ctrl-C (the parent decides), and runs on `cpus`
    only (all that it may use, when empty). `confine` takes its rights away while it has but one thread. The last one
    started, with as few rights, looks at what the process does when the parent asks by `ears`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it was gone before the request above could take effect
        os._exit(1)
    if cpus:
        os.sched_setaffinity(0, cpus)
    if nice:
        os.nice(nice)
    if confine is not None:
        confine()
    listen(ears)


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Keep a process that is started here from importing `__main__`, as loky's `init_main_module=False` does.

    A child needs nothing of it, and what it imports may start threads, which escape `confine`.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class Child:
    """One process that answers calls, one at a time; an async context manager that leaves no process behind.

    `setup(*args)` runs in the child before the first call (a model is loaded there) and has `load_seconds`;
    `confine()` runs before that, when nothing is loaded yet. Where `answers` are given, the process is not trusted:
    it inherits no secrets, and it died if it answers with anything but builtin values, builtin exceptions and these
    classes.
    Not safe for concurrent calls: its owner awaits one before it makes the next. A call whose await is
    cancelled goes on in the child, so an owner that is cancelled must close or restart the child.
    """

    def __init__(
        self,
        name: str,
        setup: Callable[..., object],
        args: tuple[Any, ...] = (),
        *,
        cpus: Sequence[int] = (),
        nice: int = 0,
        load_seconds: float = 300.0,
        confine: Callable[[], None] | None = None,
        answers: Iterable[type] | None = None,
    ) -> None:
        self.name = name
        self._setup = setup
        self._args = args
        self._cpus = tuple(cpus)
        self._nice = nice
        self._load_seconds = load_seconds
        self._confine = confine
        self._answers = answers
        self._executor: ProcessPoolExecutor | None = None
        self._sampler: Sampler | None = None  # there while there is an executor
        self.pid: int | None = None  # set while the process is ready
        self.generation = 0  # grows with every restart
        self.set_up: Any = None  # what `setup` returned

    async def __aenter__(self) -> Self:
        await self.restart()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def restart(self) -> None:
        """Kill what is there and bring up a fresh process; ServiceError when it does not become ready.

        A restart that fails or is cancelled leaves no process.
        """
        self.kill()
        self._sampler = sampler = Sampler()
        executor = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=enter,
            initargs=self._enter_args(sampler.ears),
        )
        if self._answers is not None:
            accept_only(executor, self._answers)
        self._executor = executor
        self.generation += 1
        deadline = asyncio.timeout(self._load_seconds)
        try:
            async with deadline:
                with _no_main_module(), contextlib.nullcontext() if self._answers is None else without_secrets():
                    first = executor.submit(os.getpid)  # which starts the process
                sampler.child_has_them()
                pid = await self._answer(first)
                self.set_up = await self._answer(executor.submit(self._setup, *self._args))
                self.pid = pid
        except BaseException as error:
            self.kill()
            if isinstance(error, BrokenProcessPool):
                raise ServiceError(
                    f"start {self.name}", "the process ended while it was starting", "see its message above, or dmesg"
                ) from error
            if deadline.expired() and isinstance(error, TimeoutError):
                raise ServiceError(f"start {self.name}", f"not ready after {self._load_seconds:g} s") from error
            if isinstance(error, ChildDied):
                raise ServiceError(f"start {self.name}", f"the process was {error.reason}") from error
            if isinstance(error, Exception) and not isinstance(error, ServiceError):  # what the setup raised
                raise ServiceError(f"start {self.name}", f"{type(error).__name__}: {error}") from error
            raise

    async def revive(self) -> None:
        """Bring up a fresh process where one died; what killed that may kill the next one while it starts, too.

        ServiceError when none of REVIVALS becomes ready.
        """
        for attempt in range(1, REVIVALS + 1):
            try:
                await self.restart()
            except ServiceError:
                if attempt == REVIVALS:
                    raise
                await asyncio.sleep(attempt)
            else:
                return

    async def call(self, function: Callable[..., T], *args: Any, deadline_seconds: float) -> T:
        """Return `function(*args)` from the child, or raise what it raised.

        Raises ChildDied when the process ends or outlives the deadline; then call `restart`.
        """
        if self._executor is None:
            raise ChildDied("died")
        try:
            future = self._executor.submit(function, *args)
        except BrokenProcessPool as error:
            raise ChildDied("died") from error
        try:
            async with asyncio.timeout(deadline_seconds) as deadline:
                return await self._answer(future)
        except TimeoutError:
            if not deadline.expired():
                raise  # the function's own
            self.kill()
            raise ChildDied("deadline") from None
        except BrokenProcessPool as error:
            raise ChildDied("died") from error
        except Exception as error:
            if not lacks_memory(error):
                raise
            self.kill()
            raise ChildDied("memory") from error

    async def sample(self, seconds: float, interval: float = 0.01) -> Samples:
        """Return what the process does meanwhile, beside whatever it is called for; SamplingError without an answer."""
        if self._sampler is None:
            raise SamplingError("there is no process")
        return await self._sampler.sample(seconds, interval)

    async def _answer(self, future: Future[T]) -> T:
        """Return the result of a call; ChildDied when its process is stopped meanwhile and stays so."""
        answer = asyncio.wrap_future(future)
        looks = 0
        try:
            while not (await asyncio.wait({answer}, timeout=WATCH_SECONDS))[0]:
                looks = looks + 1 if self._stopped() else 0
                if looks >= STOPPED_LOOKS:
                    self.kill()
                    raise ChildDied("stopped")
            return answer.result()
        finally:
            answer.cancel()

    async def close(self) -> None:
        """End the process and wait until its executor has let go of its pipes and semaphores."""
        if (executor := self._kill_process()) is not None:
            await asyncio.to_thread(executor.shutdown, wait=True, cancel_futures=True)

    def kill(self) -> None:
        """End the process at once; nothing when there is none."""
        if (executor := self._kill_process()) is not None:
            executor.shutdown(wait=False, cancel_futures=True)

    def _kill_process(self) -> ProcessPoolExecutor | None:
        executor, self._executor = self._executor, None
        pid, self.pid = self.pid, None
        if self._sampler is not None:
            self._sampler.close()
            self._sampler = None
        if executor is None:
            return None
        if pid is None:  # killed while starting: the executor alone knows the process
            for process in list((executor._processes or {}).values()):  # noqa: SLF001 (there is no public way)
                process.kill()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return executor

    @property
    def alive(self) -> bool:
        """Whether the process exists and is not a zombie; a system call of microseconds."""
        if self.pid is None:
            return False
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:  # its executor has noticed, too
            return False

    def _stopped(self) -> bool:
        """Whether somebody stopped the process, ready or starting: it answers nothing, and nothing says so."""
        options = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT
        processes = [] if self._executor is None else list(self._executor._processes or ())  # noqa: SLF001 (as above)
        for pid in processes:
            with contextlib.suppress(ChildProcessError):
                status = os.waitid(os.P_PID, pid, options)
                if status is not None and status.si_code == os.CLD_STOPPED:
                    return True
        return False

    def usage(self) -> tuple[int, float]:
        """Resident bytes and CPU seconds of the process; zeros when there is none."""
        if not self.alive:
            return 0, 0.0
        try:
            process = psutil.Process(self.pid)
            times = process.cpu_times()
            return int(process.memory_info().rss), float(times.user + times.system)
        except psutil.NoSuchProcess:
            return 0, 0.0

    def _enter_args(self, ears: Ears) -> tuple[Sequence[int], int, int, Callable[[], None] | None, Ears]:
        return self._cpus, self._nice, os.getpid(), self._confine, ears
