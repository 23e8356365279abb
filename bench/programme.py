"""Which contests are held in a run of which size, and how long they take (pure).

With the model `base` a 30 s window costs about 1.2 CPU seconds to encode and 2.1 to decode with beam 5 if it is full
of speech; v2td decodes at about a quarter of that (batches, greedy first). A 3 s message in a window of its own costs
1.4 CPU seconds, and 0.2 where nine share one. The samples are chosen by this arithmetic for two CPUs and grow with
the number of CPUs, so that a run takes as long on a larger machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.context import Size
from bench.corpus import KINDS
from v2td import bundled

OURS = ("engine", "raw", "v2td_full", "v2td_packed")
REFERENCE = "optimized"  # beam 5, one window at a time: the word error rate that the others are held to

ENCODE_SECONDS = {"micro": 0.1, "tiny": 0.55, "base": 1.2, "small": 4.4}  # CPU seconds of a window
DECODE_SECONDS = {"micro": 0.03, "tiny": 0.04, "base": 0.07, "small": 0.22}  # and of a second of speech, beam 5
OUR_SHARE_OF_DECODING = 0.3
WHISPER_CPP_FACTOR = 1.6  # of all that, in float16
WINDOW_SECONDS = 30.0
PACK_GAP_SECONDS = 0.6
OPEN_SECONDS = 25.0  # until all contestants are ready and warm


@dataclass(frozen=True, slots=True)
class Workload:
    """Recordings that wait in the topic together: kinds of the corpus, and how many of each on two CPUs."""

    name: str
    kinds: tuple[tuple[str, int], ...]

    def counts(self, cpus: int) -> dict[str, int]:
        """Return how many of each kind on a machine of so many CPUs."""
        return {kind: max(1, count * cpus // 2) for kind, count in self.kinds}


@dataclass(frozen=True, slots=True)
class Contest:
    """A workload for `contestants`, in turn, `rounds` times; those in `once` take part in the first round only."""

    workload: Workload
    rounds: int
    contestants: tuple[str, ...]
    once: tuple[str, ...] = ()

    def line_up(self, number: int) -> tuple[str, ...]:
        """Return who hears in this round, in which order: each round begins with another one."""
        turn = number % len(self.contestants)
        return self.contestants[turn:] + self.contestants[:turn] + (self.once if number == 0 else ())


@dataclass(frozen=True, slots=True)
class Programme:
    """All contests with one model; `suffix` tells its keys from those of the others."""

    model: bundled.Size
    contests: tuple[Contest, ...]
    suffix: str = ""

    @property
    def contestants(self) -> tuple[str, ...]:
        """Everybody who takes part."""
        return tuple(dict.fromkeys(name for contest in self.contests for name in contest.contestants + contest.once))


def _workload(name: str, *kinds: tuple[str, int]) -> Workload:
    return Workload(name, kinds)


_LONG = ("raw", "optimized", "v2td_full", "engine")
_SHORT = ("optimized", "v2td_packed")


def _other_model(model: bundled.Size, long_kind: str) -> Programme:
    contests = (
        Contest(_workload("long", (long_kind, 2)), 2, _LONG),
        Contest(_workload("short", ("3s", 16)), 2, (*_SHORT, "v2td_full")),
    )
    return Programme(model, contests, suffix=f"_{model}")


PROGRAMMES: dict[Size, tuple[Programme, ...]] = {
    "quick": (
        Programme(
            "base",
            (
                Contest(_workload("long", ("minute", 2)), 1, (*_LONG, "batched", "whisper_cpp")),
                Contest(_workload("short", ("3s", 14)), 1, (*_SHORT, "v2td_full", "original")),
                Contest(_workload("5s", ("5s", 10)), 1, _SHORT),
            ),
        ),
    ),
    "default": (
        Programme(
            "base",
            (
                Contest(_workload("long", ("3min", 2)), 3, _LONG, ("batched", "whisper_cpp", "optimized_double")),
                Contest(_workload("short", ("3s", 24)), 3, _SHORT, ("v2td_full", "original")),
                Contest(_workload("5s", ("5s", 24)), 2, _SHORT),
            ),
        ),
    ),
    "full": (
        Programme(
            "base",
            (
                Contest(_workload("long", ("4min", 2)), 5, (*_LONG, "optimized_double", "batched"), ("whisper_cpp",)),
                Contest(
                    _workload("short", ("3s", 48)),
                    5,
                    (*_SHORT, "optimized_double", "v2td_full"),
                    ("original", "v2td_short", "whisper_cpp"),
                ),
                Contest(_workload("short_vi", ("3s-vi", 24)), 3, (*_SHORT, "v2td_full")),
                Contest(_workload("5s", ("5s", 32)), 5, (*_SHORT, "optimized_double", "v2td_full"), ("v2td_short",)),
                Contest(_workload("10s", ("10s", 24)), 3, (*_SHORT, "v2td_full"), ("v2td_short",)),
                Contest(_workload("call", ("call", 12)), 3, ("raw", "optimized", "batched", "v2td_full")),
                Contest(_workload("10min", ("10min", 2)), 3, _LONG),
                Contest(
                    _workload("mix", ("hour", 1), ("10min", 2), ("call", 8), ("10s", 12), ("5s", 16), ("3s", 24)),
                    1,
                    ("raw", "optimized", "v2td_full", "v2td_packed"),
                ),
            ),
        ),
        _other_model("tiny", "3min"),
        _other_model("small", "minute"),
    ),
}


def expected_seconds(contestant: str, seconds: Sequence[float], model: bundled.Size, cpus: int) -> float:
    """Return about how long a contestant takes for recordings of so many seconds."""
    if contestant == "v2td_packed":
        together = [each + PACK_GAP_SECONDS for each in seconds if each <= WINDOW_SECONDS / 2]
        alone = [each for each in seconds if each > WINDOW_SECONDS / 2]
        windows = math.ceil(sum(together) / WINDOW_SECONDS) + _windows(alone)
    else:
        windows = _windows(seconds)
    decode = DECODE_SECONDS[model] * sum(seconds) * (OUR_SHARE_OF_DECODING if contestant in OURS else 1.0)
    speed = min(cpus, 4) * 0.9 if contestant == "original" else cpus  # the threads of one model, against processes
    factor = WHISPER_CPP_FACTOR if contestant == "whisper_cpp" else 1.0
    return factor * (windows * ENCODE_SECONDS[model] + decode) / speed


def expected_contest_seconds(contest: Contest, model: bundled.Size, cpus: int) -> float:
    """Return about how long a contest takes."""
    counts = contest.workload.counts(cpus)
    seconds = [KINDS[kind].most for kind, count in counts.items() for _ in range(count)]
    line_ups = (contest.line_up(number) for number in range(contest.rounds))
    return sum(expected_seconds(name, seconds, model, cpus) for line_up in line_ups for name in line_up)


def _windows(seconds: Sequence[float]) -> int:
    return sum(math.ceil(each / WINDOW_SECONDS) for each in seconds)
