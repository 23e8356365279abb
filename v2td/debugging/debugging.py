"""Looks into the daemon when it is asked, and watches the loop and its tasks meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psutil

from v2td.admin import CannotTellError, Form, Profile
from v2td.child import Child
from v2td.debugging.heap import Heap
from v2td.debugging.loop import LoopWatch
from v2td.debugging.profiles import INTERVAL, profiled_loop, rendered, session_of, spied
from v2td.debugging.tasks import Tasks
from v2td.sampling import SamplingError

LOOP = "loop"


class Debugging:
    """Tells of the loop that it runs in, and of the children; `state` is what the engine says of its slots."""

    def __init__(self, children: Callable[[], Mapping[str, Child]], state: Callable[[], dict[str, Any]]) -> None:
        self._children = children
        self._state = state
        self._watch = LoopWatch()
        self._tasks = Tasks()
        self._heap = Heap()
        self._profiled: str | None = None  # whose profile is made now
        self._looking = asyncio.Lock()

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch.run(), name="loop watch")
                group.create_task(self._tasks.run(), name="tasks watch")
        finally:
            self._heap.close()

    def processes(self) -> Sequence[str]:
        """Return what may be profiled."""
        return (LOOP, *self._children())

    async def profile(self, of: str, seconds: float, form: Form) -> Profile:
        """Return what the loop or a child did for so long, one at a time; CannotTellError when that cannot be had."""
        if self._profiled is not None:
            raise CannotTellError(409, f"a profile of {self._profiled} is being made: one at a time")
        self._profiled = of
        try:
            if of == LOOP:
                session, made_by = await profiled_loop(seconds), "pyinstrument"
            else:
                session, made_by = await self._of_child(of, seconds)
            return Profile(await asyncio.to_thread(rendered, session, form), made_by)
        finally:
            self._profiled = None

    async def _of_child(self, of: str, seconds: float) -> tuple[Any, str]:
        child = self._children()[of]
        if child.pid is None:
            raise CannotTellError(503, f"{of}: the process is not there now")
        found = await spied(child.pid, int(seconds))
        if not isinstance(found, str):
            return session_of(found, f"v2td {of}, by py-spy"), "py-spy"
        try:
            async with self._looking:
                samples = await child.sample(seconds, INTERVAL)
        except SamplingError as error:
            raise CannotTellError(503, f"{of}: {error}; py-spy: {found}") from error
        return session_of(samples, f"v2td {of}, by its own sampler"), f"sampler ({found})"

    async def heap(self, top: int, *, stop: bool) -> dict[str, Any]:
        """Return what memory was allocated for since the last call."""
        return await self._heap.told(top, stop=stop)

    def tasks(self) -> dict[str, Any]:
        """Return all tasks."""
        return self._tasks.told()

    async def slots(self) -> dict[str, Any]:
        """Return all children: what the system knows of them, and where each is."""
        children = self._children()
        found = await asyncio.to_thread(lambda: {name: _process(child.pid) for name, child in children.items()})
        if self._profiled in (None, LOOP) and not self._looking.locked():
            async with self._looking:
                stacks = await asyncio.gather(*(self._where(child) for child in children.values()))
        else:
            stacks = ["not looked at while a profile is made"] * len(children)
        for (name, child), stack in zip(children.items(), stacks, strict=True):
            found[name] |= {"restarts": max(0, child.generation - 1), "stack": stack}
        return {"processes": found, **self._state()}

    async def _where(self, child: Child) -> list[str] | str:
        try:
            samples = await child.sample(0)
        except SamplingError as error:
            return str(error)
        return [str(place) for place in samples.stacks[0]] if samples.stacks else []

    def loop(self) -> dict[str, Any]:
        """Return how late the loop was."""
        return self._watch.told()


def _process(pid: int | None) -> dict[str, Any]:
    if pid is None:
        return {"pid": None}
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return {
                "pid": pid,
                "state": process.status(),
                "rss_bytes": process.memory_info().rss,
                "cpu_seconds": round(times.user + times.system, 2),
                "threads": process.num_threads(),
                "cpus": process.cpu_affinity(),
                "nice": process.nice(),
                "open_files": process.num_fds(),
            }
    except psutil.Error as error:
        return {"pid": pid, "state": type(error).__name__}
