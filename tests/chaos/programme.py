"""Which faults there are, and how they are laid on lanes: most of their time they wait for something."""

from __future__ import annotations

import asyncio
import pkgutil
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tests.chaos import faults
from tests.chaos.fault import Fault, Result, Size
from tests.chaos.world import open_world
from tests.services.state import Services

LANES = 3  # on two cores
FEW = 2  # faults that may be run again: more at once are no accident
CLOSE_SECONDS = 60.0  # for a fault that was ended, to put back what it had put out of order

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Ran:
    """A fault that was run, in so many seconds."""

    fault: Fault
    seconds: float
    result: Result


def all_faults() -> list[Fault]:
    """Return the faults of all modules in faults/."""
    modules = [import_module(f"{faults.__name__}.{each.name}") for each in pkgutil.iter_modules(faults.__path__)]
    found: list[Fault] = [fault for module in modules for fault in module.FAULTS]
    assert len({each.name for each in found}) == len(found), "two faults have one name"
    return found


async def run_all(
    chosen: Sequence[Fault], size: Size, services: Services, folder: Path, say: Say, *, lanes: int = LANES
) -> list[Ran]:
    """Run the faults, the longest first, on so many lanes; then one by one those that are to be alone.

    A few that lost and doubled nothing but missed a deadline run once more, alone: the machine may have been busy.
    """
    together = sorted((each for each in chosen if not each.alone), key=lambda fault: -size.pick(*fault.seconds))
    waiting = deque(together)
    ran: list[Ran] = []

    async def lane() -> None:
        while waiting:
            ran.append(await run_one(waiting.popleft(), size, services, folder, say))

    async with asyncio.TaskGroup() as group:
        for _ in range(lanes):
            group.create_task(lane())
    ran += [await run_one(fault, size, services, folder, say) for fault in chosen if fault.alone]
    late = [each for each in ran if each.result.late]
    if 0 < len(late) <= FEW:
        again = [await run_one(each.fault, size, services, folder / "again", say) for each in late]
        for first, second in zip(late, again, strict=True):
            second.result.failpoints |= first.result.failpoints
        ran = [each for each in ran if each not in late] + again
    return sorted(ran, key=lambda each: chosen.index(each.fault))


async def run_one(fault: Fault, size: Size, services: Services, folder: Path, say: Say) -> Ran:
    """Run a fault in a world of its own; whatever it raises, and its taking too long, is a problem of its result."""
    began = time.monotonic()
    results: list[Result] = []

    async def run() -> None:
        async with open_world(services, folder / fault.name, lambda line: say(f"{fault.name}: {line}")) as world:
            results.append(await fault.run(world, size))

    say(f"{fault.name}: begins")
    task = asyncio.create_task(run())
    try:
        problem = await _problem_of(task, fault.limit_seconds(size))
    except asyncio.CancelledError:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        raise
    result = results[0] if results else Result(cycles=0)
    if problem:
        result.problems.append(problem)
    seconds = time.monotonic() - began
    say(f"{fault.name}: {'passed' if result.passed else 'FAILED'} after {seconds:.1f} s")
    for line in result.problems:
        say(f"{fault.name}: {line}")
    return Ran(fault, seconds, result)


async def _problem_of(task: asyncio.Task[None], seconds: float) -> str | None:
    """Wait for the task, and say what is wrong with it if anything is."""
    _, running = await asyncio.wait([task], timeout=seconds)
    if running:
        task.cancel()
        await asyncio.wait([task], timeout=CLOSE_SECONDS)
        return f"not done after {seconds:g} s"
    error = task.exception()
    if error is None:
        return None
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"
