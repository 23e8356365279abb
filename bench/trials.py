"""What came of the runs of a contest: medians, ratios, word errors (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.words import WordErrors


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of one contestant over a workload.

    `seconds` is wall time; `latencies` are the seconds from the start to each recording's text.
    """

    workload: str
    contestant: str
    audio_seconds: float
    seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    word_errors: WordErrors
    latencies: tuple[float, ...]

    @property
    def throughput(self) -> float:
        """Seconds of audio per second."""
        return self.audio_seconds / self.seconds


class Trials:
    """All runs, in the order in which they were made."""

    def __init__(self, trials: Iterable[Trial] = ()) -> None:
        self._trials = list(trials)

    def add(self, trial: Trial) -> None:
        """Add a run."""
        self._trials.append(trial)

    def of(self, workload: str, contestant: str) -> list[Trial]:
        """Return the runs of one contestant."""
        return [each for each in self._trials if (each.workload, each.contestant) == (workload, contestant)]

    def workloads(self) -> list[str]:
        """Return the workloads that were run, in order."""
        return list(dict.fromkeys(each.workload for each in self._trials))

    def contestants(self, workload: str) -> list[str]:
        """Return who took part, in order."""
        return list(dict.fromkeys(each.contestant for each in self._trials if each.workload == workload))

    def throughput(self, workload: str, contestant: str) -> float | None:
        """Return the median throughput, None for who did not take part."""
        runs = self.of(workload, contestant)
        return median(run.throughput for run in runs) if runs else None

    def ratio(self, workload: str, contestant: str, other: str) -> float | None:
        """Return the median throughput of a contestant as a multiple of another's."""
        ours, theirs = self.throughput(workload, contestant), self.throughput(workload, other)
        return ours / theirs if ours is not None and theirs is not None else None

    def word_errors(self, workload: str, contestant: str) -> WordErrors:
        """Return those of all rounds together."""
        runs = self.of(workload, contestant)
        return WordErrors(sum(run.word_errors.errors for run in runs), sum(run.word_errors.words for run in runs))

    def fastest(self, workload: str, contestants: Sequence[str]) -> str | None:
        """Return who of these has the highest median, None when none took part."""
        speeds = {name: speed for name in contestants if (speed := self.throughput(workload, name)) is not None}
        return max(speeds, key=lambda name: speeds[name]) if speeds else None
