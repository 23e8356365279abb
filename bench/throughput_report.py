"""The contests' values, tables and plots (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.context import Bars, Distribution, Findings, Plot, Table
from bench.programme import OURS, REFERENCE, Programme
from bench.trials import Trials
from bench.words import TOLERATED_RATE, TOLERATED_WORDS

MIB = 2**20
# key: workload, ours, theirs
RATIOS = {
    "ratio_engine_long": ("long", "v2td_full", "engine"),
    "ratio_raw_long": ("long", "v2td_full", "raw"),
    "ratio_optimized_long": ("long", "v2td_full", "optimized"),
    "ratio_batched_long": ("long", "v2td_full", "batched"),
    "ratio_whisper_cpp_long": ("long", "v2td_full", "whisper_cpp"),
    "ratio_original_short": ("short", "v2td_packed", "original"),
    "ratio_optimized_short": ("short", "v2td_packed", "optimized"),
    "ratio_optimized_short_full": ("short", "v2td_full", "optimized"),
    "ratio_optimized_5s": ("5s", "v2td_packed", "optimized"),
}


def findings(held: Iterable[tuple[Programme, Trials, Sequence[str]]]) -> Findings:
    """Report on programmes with the runs that were made and the problems that came up in them."""
    values: dict[str, float] = {}
    tables: list[Table] = []
    plots: list[Plot] = []
    notes: list[str] = []
    problems: list[str] = []
    for programme, trials, troubles in held:
        values |= _values(programme, trials)
        problems += troubles
        for workload in trials.workloads():
            tables.append(_table(programme, trials, workload))
            plots += _plots(programme, trials, workload)
            for name in _too_many_errors(trials, workload):
                rates = f"{_rate(trials, workload, name):.2%} against {_rate(trials, workload, REFERENCE):.2%}"
                line = f"{programme.model} {workload}: the word error rate of {name} is {rates}"
                (problems if name in OURS else notes).append(line)
    return Findings(values, tuple(tables), tuple(plots), tuple(notes), tuple(problems))


def _values(programme: Programme, trials: Trials) -> dict[str, float]:
    values: dict[str, float] = {}
    for key, (workload, ours, theirs) in RATIOS.items():
        # `optimized` takes whichever of its numbers of threads is better.
        other = trials.fastest(workload, (theirs, f"{theirs}_double")) or theirs
        if (ratio := trials.ratio(workload, ours, other)) is not None:
            values[key + programme.suffix] = ratio
    for workload in trials.workloads():
        for name in trials.contestants(workload):
            key = f"{workload}_{name}{programme.suffix}"
            values[f"wer_{key}"] = _rate(trials, workload, name)
            values[f"throughput_{key}"] = trials.throughput(workload, name) or 0.0
    return values


def _table(programme: Programme, trials: Trials, workload: str) -> Table:
    reference = trials.fastest(workload, (REFERENCE, f"{REFERENCE}_double"))
    rows = []
    for name in trials.contestants(workload):
        runs = trials.of(workload, name)
        speeds = [run.throughput for run in runs]
        rows.append(
            (
                name,
                len(runs),
                trials.throughput(workload, name),
                f"{min(speeds):.1f} – {max(speeds):.1f}",
                trials.ratio(workload, name, reference) if reference else None,
                sum(run.audio_seconds for run in runs) / max(sum(run.cpu_seconds for run in runs), 1e-9),
                max(run.peak_rss_bytes for run in runs) // MIB,
                f"{_rate(trials, workload, name):.2%}",
            )
        )
    any_run = trials.of(workload, trials.contestants(workload)[0])[0]
    recordings, seconds = len(any_run.latencies), any_run.audio_seconds
    return Table(
        f"{workload}, model {programme.model}: {recordings} recordings, {seconds:.0f} s",
        (
            *("contestant", "runs", "audio s per s", "least – most", f"× {reference}"),
            *("audio s per CPU s", "peak RSS MiB", "word error rate"),
        ),
        tuple(rows),
        f"Medians of the runs. A word error rate more than {TOLERATED_RATE:.0%} (or {TOLERATED_WORDS} words) above "
        f"that of {REFERENCE} counts as wrong. RSS counts pages shared between processes once for each.",
    )


def _plots(programme: Programme, trials: Trials, workload: str) -> list[Plot]:
    names = trials.contestants(workload)
    title = f"{workload}, model {programme.model}"
    return [
        Bars(
            f"throughput-{workload}-{programme.model}",
            f"Throughput: {title}",
            "seconds of audio per second",
            tuple((name, trials.throughput(workload, name) or 0.0) for name in names),
        ),
        Distribution(
            f"latency-{workload}-{programme.model}",
            f"From the first message to each text: {title}",
            "seconds",
            tuple(
                (name, tuple(second for run in trials.of(workload, name) for second in run.latencies)) for name in names
            ),
        ),
    ]


def _too_many_errors(trials: Trials, workload: str) -> list[str]:
    reference = trials.word_errors(workload, REFERENCE)
    if reference.words == 0:
        return []
    return [
        name for name in trials.contestants(workload) if trials.word_errors(workload, name).is_worse_than(reference)
    ]


def _rate(trials: Trials, workload: str, name: str) -> float:
    return trials.word_errors(workload, name).rate
