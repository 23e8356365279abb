"""The slots and the queue before them, in virtual time: discrete events, nothing waits."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from v2td.engine.estimate import CostEstimate, share_of_slot
from v2td.engine.scheduler import WindowQueue

ENCODE_SECONDS = 1.2  # a window; measured: Whisper base, int8, one thread, greedy
DECODE_SECONDS = {0: 0.0, 1: 1.29, 2: 1.80, 4: 2.80, 8: 4.30}  # windows together: all of them


def batch_seconds(weight: float) -> float:
    """What a batch costs: its windows are encoded one by one and decoded together; clips share windows."""
    windows = math.ceil(weight - 1e-9)
    less, more = (1, 2) if windows < 2 else (2, 4) if windows < 4 else (4, 8)
    slope = (DECODE_SECONDS[more] - DECODE_SECONDS[less]) / (more - less)
    return ENCODE_SECONDS * windows + DECODE_SECONDS[less] + slope * (windows - less)


def capacity(slots: int, batch_windows: int) -> float:
    """Windows a second when all slots run full batches."""
    return slots * batch_windows / batch_seconds(batch_windows)


@dataclass(frozen=True, slots=True)
class Job:
    """A recording of so many windows, which is decoded from `at` on, a window each `decode_seconds`."""

    name: str
    at: float
    windows: int = 1
    priority: int = 5
    key: str = "vi"
    weight: float = 1.0
    decode_seconds: float = 0.15


@dataclass(frozen=True, slots=True)
class Served:
    """A window: when it came into the queue, when its batch began and ended, which batch (of all slots) that was."""

    job: Job
    index: int
    came: float
    began: float
    ended: float
    slot: int
    batch: int

    @property
    def wait(self) -> float:
        return self.began - self.came


def messages(per_second: float, until: float, *, seed: int, poisson: bool = True, priority: int = 5) -> Iterator[Job]:
    """Short messages until then: a Poisson process, or one at a random time in each interval."""
    chance = random.Random(seed)
    at = 0.0
    for number in count():
        at = at + chance.expovariate(per_second) if poisson else (number + chance.random()) / per_second
        if at >= until:
            return
        yield Job(f"message {number}", at, priority=priority)


@dataclass(slots=True)
class Machine:
    """The slots. `spread`: windows cost from 1 - spread to 1 + spread times what the cost model says."""

    slots: int
    batch_windows: int = 8
    batch_seconds_max: float = 15.0
    oldest_share: float = 0.2
    spread: float = 0.0
    seed: int = 0
    served: list[Served] = field(default_factory=list)

    def run(self, jobs: Iterable[Job], until: float = math.inf) -> list[Served]:
        """Return the windows whose batch began before `until`, in the order in which they were taken."""
        queue: WindowQueue[tuple[Job, int, float]] = WindowQueue(oldest_share=self.oldest_share)
        estimate = CostEstimate()
        estimate.observe(1.0, batch_seconds(1.0))  # the warm-up
        order = count()  # of events at the same time
        events: list[tuple[float, int, Callable[[float], None]]] = []
        numbers: dict[Job, int] = {}
        busy: dict[int, tuple[float, float]] = {}  # weight of the slot's batch, when it began
        chance = random.Random(self.seed)
        batches = 0

        def schedule(time: float, event: Callable[[float], None]) -> None:
            heapq.heappush(events, (time, next(order), event))

        def arrive(now: float, job: Job, index: int) -> None:
            if job not in numbers:
                numbers[job] = queue.add_job(job.priority)
            queue.put(numbers[job], (job, index, now), key=job.key, weight=job.weight)

        def end(now: float, slot: int) -> None:
            weight, began = busy.pop(slot)
            estimate.observe(weight, now - began)

        def begin(now: float, slot: int) -> None:
            under_way = sum(estimate.left(weight, now - began) for weight, began in busy.values())
            limit = estimate.limit(self.batch_windows, self.batch_seconds_max)
            batch = queue.take_batch(share_of_slot(queue.weight, self.slots, under_way, limit))
            weight = sum(job.weight for job, _, _ in batch)
            seconds = batch_seconds(weight) * (1 + chance.uniform(-self.spread, self.spread))
            busy[slot] = (weight, now)
            self.served += [Served(*each, now, now + seconds, slot, batches) for each in batch]
            schedule(now + seconds, partial(end, slot=slot))

        for job in jobs:
            for index in range(job.windows):
                schedule(job.at + index * job.decode_seconds, partial(arrive, job=job, index=index))
        while events and (now := events[0][0]) < until:
            while events and events[0][0] == now:
                heapq.heappop(events)[2](now)
            for slot in range(self.slots):
                if slot not in busy and len(queue):
                    begin(now, slot)
                    batches += 1
        return self.served
