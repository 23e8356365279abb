"""Real child processes; what they run is from the standard library, so that they start fast."""

import asyncio
import gc
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from tests.living import lives
from v2td.child import Child, ChildDied
from v2td.errors import ErrorClass, JobError, ServiceError

PARENT_GONE = """
import asyncio, gc, sys, time
from v2td.child import Child

async def main():
    async with Child("idle", gc.collect) as idle, Child("busy", gc.collect) as busy:
        print("ready", flush=True)
        await busy.call(time.sleep, 100, deadline_seconds=200)

asyncio.run(main())
"""


def raise_in_child(statement: str) -> tuple[Callable[..., None], str]:
    return exec, statement  # a function that pickles, for any statement


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # a process ends without an event
            await asyncio.sleep(0.01)


def children() -> set[int]:
    """Our processes, but for multiprocessing's own bookkeeper, which lives as long as we do."""
    return {process.pid for process in psutil.Process().children(recursive=True) if is_a_child(process)}


def is_a_child(process: psutil.Process) -> bool:
    try:
        return lives(process) and "resource_tracker" not in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it ended between the two looks
        return False


async def test_calls_are_answered_and_errors_come_back_as_they_were() -> None:
    async with Child("child", gc.collect) as child:
        assert await child.call(os.getpid, deadline_seconds=5) == child.pid
        with pytest.raises(ValueError, match="invalid literal"):
            await child.call(int, "x", deadline_seconds=5)
        function, statement = raise_in_child("from v2td.errors import *; raise JobError(ErrorClass.TOO_LONG, 'no')")
        with pytest.raises(JobError) as caught:
            await child.call(function, statement, deadline_seconds=5)
        assert caught.value.error_class is ErrorClass.TOO_LONG
        assert await child.call(os.getpid, deadline_seconds=5) == child.pid
        assert child.generation == 1


async def test_setup_runs_with_its_arguments_before_the_first_call() -> None:
    async with Child("child", os.chdir, ("/",)) as child:
        assert await child.call(os.getcwd, deadline_seconds=5) == "/"


async def test_a_child_is_pinned_nice_deaf_to_ctrl_c_and_dies_with_its_parent() -> None:
    cpu = max(os.sched_getaffinity(0))
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    async with Child("child", gc.collect, cpus=[cpu], nice=3) as child:
        assert await child.call(os.sched_getaffinity, 0, deadline_seconds=5) == {cpu}
        assert await child.call(os.getpriority, os.PRIO_PROCESS, 0, deadline_seconds=5) == nice + 3
        assert child.pid is not None
        os.kill(child.pid, signal.SIGINT)
        assert await child.call(os.getpid, deadline_seconds=5) == child.pid
        get_death_signal = (
            "import ctypes, signal; number = ctypes.c_int();"
            "ctypes.CDLL(None).prctl(2, ctypes.byref(number));"
            "assert number.value == signal.SIGKILL, number.value"
        )
        await child.call(exec, get_death_signal, deadline_seconds=5)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["ready", "starting"])
async def test_a_killed_parent_leaves_no_process(moment: str) -> None:
    for _ in range(2 if moment == "ready" else 6):
        parent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PARENT_GONE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert parent.stdout is not None
        if moment == "ready":
            assert await parent.stdout.readline() == b"ready\n"
        else:
            await asyncio.sleep(random.uniform(0.1, 1.0))

        def left(session: int = parent.pid) -> list[psutil.Process]:
            return [each for each in psutil.process_iter() if in_session(each, session)]

        assert left()
        parent.kill()
        await parent.wait()
        await until(lambda: not left(), seconds=2)


def in_session(process: psutil.Process, session: int) -> bool:
    try:
        return os.getsid(process.pid) == session and lives(process)
    except ProcessLookupError:
        return False


async def test_a_call_that_outlives_its_deadline_is_ended_with_its_process() -> None:
    async with Child("child", gc.collect) as child:
        pid = child.pid
        assert pid is not None
        began = time.monotonic()
        with pytest.raises(ChildDied) as caught:
            await child.call(time.sleep, 60, deadline_seconds=0.2)
        assert caught.value.reason == "deadline"
        assert time.monotonic() - began < 5
        assert not child.alive
        await until(lambda: not psutil.pid_exists(pid))
        with pytest.raises(ChildDied):
            await child.call(os.getpid, deadline_seconds=5)
        await child.restart()
        assert child.generation == 2
        assert await child.call(os.getpid, deadline_seconds=5) == child.pid != pid


@pytest.mark.slow
async def test_a_stopped_child_is_ended_long_before_its_deadline() -> None:
    async with Child("child", gc.collect) as child:
        pid = child.pid
        assert pid is not None
        began = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(ChildDied, match="stopped"):
            await child.call(os.getpid, deadline_seconds=60)
        assert 2 < time.monotonic() - began < 5
        await until(lambda: not psutil.pid_exists(pid))
        await child.restart()
        assert await child.call(os.getpid, deadline_seconds=5) == child.pid != pid


@pytest.mark.slow
async def test_a_child_that_is_stopped_for_a_moment_goes_on() -> None:
    """As after a suspend of the machine, when we may run before it does."""
    async with Child("child", gc.collect) as child:
        pid = child.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        asyncio.get_running_loop().call_later(1.5, os.kill, pid, signal.SIGCONT)
        assert await child.call(os.getpid, deadline_seconds=20) == pid
        await child.call(time.sleep, 3.5, deadline_seconds=20)  # the stop is over, and forgotten
        assert child.pid == pid


@pytest.mark.slow
async def test_a_child_that_is_stopped_while_it_starts_is_ended() -> None:
    task = asyncio.create_task(Child("slot 3", time.sleep, (60,)).restart())
    await until(lambda: len(children()) == 1)
    os.kill(children().pop(), signal.SIGSTOP)
    with pytest.raises(ServiceError, match=r"start slot 3: the process was stopped"):
        await asyncio.wait_for(task, 10)
    await until(lambda: not children())


@pytest.mark.parametrize(
    "statement",
    [
        "bytes(2**60)",
        "import errno; raise OSError(errno.ENOMEM, 'Cannot allocate memory')",
        "raise RuntimeError('[ONNXRuntimeError] : 1 : FAIL : std::bad_alloc')",
        "raise RuntimeError('CUDA failed with error out of memory')",
    ],
)
async def test_a_child_without_memory_is_ended(statement: str) -> None:
    """What it could not get once it may miss again: a fresh process has all of it."""
    async with Child("child", gc.collect) as child:
        pid = child.pid
        with pytest.raises(ChildDied, match="memory"):
            await child.call(*raise_in_child(statement), deadline_seconds=5)
        assert not child.alive
        await child.restart()
        assert await child.call(os.getpid, deadline_seconds=5) == child.pid != pid


async def test_the_functions_own_timeout_is_its_own() -> None:
    async with Child("child", gc.collect) as child:
        with pytest.raises(TimeoutError, match="mine"):
            await child.call(*raise_in_child("raise TimeoutError('mine')"), deadline_seconds=5)
        assert child.alive
        assert await child.call(os.getpid, deadline_seconds=5) == child.pid


@pytest.mark.parametrize("way", ["killed", "exit"])
async def test_a_child_that_dies_under_a_call_says_so(way: str) -> None:
    async with Child("child", gc.collect) as child:
        assert child.pid is not None
        if way == "killed":
            asyncio.get_running_loop().call_later(0.2, os.kill, child.pid, signal.SIGKILL)
            call = child.call(time.sleep, 60, deadline_seconds=30)
        else:
            call = child.call(os._exit, 3, deadline_seconds=30)
        with pytest.raises(ChildDied) as caught:
            await call
        assert caught.value.reason == "died"
        await child.restart()
        assert child.alive


async def test_a_child_that_died_while_idle_is_noticed_at_the_next_call() -> None:
    async with Child("child", gc.collect) as child:
        assert child.pid is not None
        assert child.alive
        assert child.usage()[0] > 1_000_000
        os.kill(child.pid, signal.SIGKILL)
        await until(lambda: not child.alive)
        with pytest.raises(ChildDied, match="died"):
            await child.call(os.getpid, deadline_seconds=5)
        assert child.usage() == (0, 0.0)


@pytest.mark.parametrize(
    ("setup", "args", "detail"),
    [
        (time.sleep, (60,), "not ready after 0.5 s"),
        (os._exit, (1,), "ended while it was starting"),
        (int, ("model",), "ValueError: invalid literal"),
        (exec, ("raise TimeoutError('hub')",), "TimeoutError: hub"),
    ],
)
async def test_a_child_that_does_not_start_is_our_fault_and_leaves_nothing(
    setup: Callable[..., None], args: tuple[object, ...], detail: str
) -> None:
    load_seconds = 0.5 if setup is time.sleep else 30
    with pytest.raises(ServiceError, match=detail) as caught:
        async with Child("slot 3", setup, args, load_seconds=load_seconds):
            pytest.fail("it did start")
    assert caught.value.operation == "start slot 3"
    await until(lambda: not children())


async def test_the_setups_own_service_error_keeps_its_words() -> None:
    with pytest.raises(ServiceError, match=r"load: no model \(pull it\)"):
        async with Child(
            "slot", exec, ("from v2td.errors import *; raise ServiceError('load', 'no model', 'pull it')",)
        ):
            pytest.fail("it did start")
    await until(lambda: not children())


async def test_a_cancelled_start_leaves_no_process() -> None:
    for moment in (0.0, 0.05, 0.5):
        task = asyncio.create_task(Child("child", time.sleep, (60,)).restart())
        await asyncio.sleep(moment)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not children())


async def test_a_cancelled_call_leaves_the_child_to_its_owner() -> None:
    async with Child("child", gc.collect) as child:
        task = asyncio.create_task(child.call(time.sleep, 0.3, deadline_seconds=5))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await child.call(os.getpid, deadline_seconds=5) == child.pid
    await until(lambda: not children())


@pytest.mark.slow
async def test_restarts_leak_no_descriptor_thread_or_process() -> None:
    this = psutil.Process()
    async with Child("child", gc.collect) as child:
        await child.restart()
        await until(lambda: len(children()) == 1)
        before = this.num_fds(), this.num_threads()
        for _ in range(5):
            await child.restart()
        await until(lambda: len(children()) == 1)
        await until(lambda: (this.num_fds(), this.num_threads()) <= before)
    await until(lambda: not children())


async def test_closing_twice_and_killing_nothing_do_no_harm() -> None:
    child = Child("child", gc.collect)
    child.kill()
    await child.close()
    async with child:
        await child.close()
    await child.close()
    assert not child.alive
