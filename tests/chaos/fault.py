"""What a fault is, how large it is run, and what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tests.chaos.world import World

T = TypeVar("T")
LATE = "progress after"


@dataclass(frozen=True, slots=True)
class Size:
    """The short form is for each merge, the long one is run once for docs/reliability.md."""

    long: bool = False
    kill_cycles: int | None = None  # --cycles

    def pick(self, short: T, long: T) -> T:
        """Return the figure of this form: `cycles = size.pick(2, 10)`."""
        return long if self.long else short


@dataclass(slots=True)
class Result:
    """What came of a fault; `World.result` makes one, with the auditor's verdict in it.

    `problems` are missed deadlines and whatever else is not as the contract has it, one sentence each: any of them
    makes the run fail, as do lost, duplicates and orphans. `recoveries` are seconds from the end of the fault (the
    service is back, the daemon was started again) to the first progress. `redone_ratio` is windows that were heard
    again / different windows heard. `figures` are further numbers for docs/reliability.md.
    """

    cycles: int
    recoveries: list[float] = field(default_factory=list)
    lost: int = 0
    duplicates: int = 0
    orphans: int = 0
    redone_ratio: float = 0.0
    records: int = 0  # produced and acknowledged
    failpoints: set[str] = field(default_factory=set)  # places that went off
    problems: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.duplicates or self.orphans or self.problems)

    @property
    def late(self) -> bool:
        """Whether nothing is wrong but deadlines that were missed."""
        wrong = self.lost or self.duplicates or self.orphans
        return bool(self.problems) and not wrong and all(LATE in each for each in self.problems)


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of trouble. `run` brings it about in a world of its own, again and again, and says what came of it.

    `seconds` are how long it takes about, in the short and in the long form: faults are laid on the lanes by it,
    and one that takes three times as long (and a minute) is ended as a problem. `alone`: nothing else may run
    meanwhile, since it measures time. What `run` raises is a problem too, and the other faults go on.
    """

    name: str
    run: Callable[[World, Size], Awaitable[Result]]
    summary: str
    seconds: tuple[float, float] = (20.0, 120.0)
    alone: bool = False

    def limit_seconds(self, size: Size) -> float:
        """Return after how long the fault is ended."""
        return 60.0 + 3.0 * size.pick(*self.seconds)


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that `share` of them do not exceed; None when there are none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def within(recoveries: Sequence[float], seconds: float, what: str) -> list[str]:
    """Return the problems of a deadline: one for each recovery that took longer than `seconds`."""
    return [f"{what}: {LATE} {each:.1f} s instead of {seconds:g} s" for each in recoveries if each > seconds]
