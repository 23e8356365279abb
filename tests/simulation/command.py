"""The command line: see the package's docstring."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from tests.simulation import world
from tests.simulation.mutations import MUTATIONS, mutated

KEPT = Path(__file__).with_name("seeds.txt")
MUTATION_SEEDS = 400  # in which each bug must show


def main() -> None:
    """Exit status 1 when a seed fails, or a mutation does not."""
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is part of a schedule
        command = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | {"PYTHONHASHSEED": "0"})
    options = _parser().parse_args()
    if options.trace is not None:
        sys.exit(_trace(options.trace))
    if options.mutations:
        sys.exit(_mutations())
    began = time.monotonic()
    end = began + options.seconds if options.seconds else None
    seeds = [*_kept(), *range(options.start, options.start + options.seeds)]
    failed, played = _play(seeds, end, keep=not options.forget)
    seconds = time.monotonic() - began
    print(f"{played} schedules in {seconds:.1f} s ({60 * played / seconds:.0f} a minute), {failed} failed")
    sys.exit(1 if failed else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=1000, help="how many schedules, after those that are kept")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--seconds", type=float, help="stop after so long")
    parser.add_argument("--forget", action="store_true", help="do not add failing seeds to seeds.txt")
    parser.add_argument("--trace", type=int, metavar="SEED", help="print what happens in one schedule")
    parser.add_argument("--mutations", action="store_true", help="build bugs in, and see that each is found")
    return parser


def _kept() -> list[int]:
    lines = (line.partition("#")[0].strip() for line in KEPT.read_text(encoding="utf-8").splitlines())
    return [int(line) for line in lines if line]


def _play(seeds: Iterable[int], end: float | None, *, keep: bool) -> tuple[int, int]:
    failed = played = 0
    kept = set(_kept())
    for seed in seeds:
        if end is not None and time.monotonic() > end:
            break
        played += 1
        outcome = world.run(seed)
        if not outcome.problems:
            continue
        failed += 1
        print(f"seed {seed} fails:", *outcome.problems[:5], sep="\n    ")
        print(f"    python -m tests.simulation --trace {seed}", flush=True)
        if keep and seed not in kept:
            with KEPT.open("a", encoding="utf-8") as file:
                file.write(f"{seed}  # {outcome.problems[0][:100]}\n")
    return failed, played


def _trace(seed: int) -> int:
    outcome = world.run(seed, logs=True)
    for moment, *what in outcome.trace:
        print(f"{moment:8.3f}", *what)
    print(*(outcome.problems or ["no problem"]), sep="\n")
    return 1 if outcome.problems else 0


def _mutations() -> int:
    missed = 0
    for name in MUTATIONS:
        with mutated(name):
            found = next((each for each in map(world.run, range(MUTATION_SEEDS)) if each.problems), None)
        if found is None:
            missed += 1
            print(f"{name}: NOT FOUND in {MUTATION_SEEDS} schedules", flush=True)
        else:
            print(f"{name}: seed {found.seed}: {found.problems[0][:160]}", flush=True)
    return 1 if missed else 0
