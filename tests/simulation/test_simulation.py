"""A few seconds of schedules; the long form is `python -m tests.simulation --seeds 20000`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the order of its sets is part of a schedule, and its clock is not ours."""
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.slow
def test_schedules() -> None:
    played = simulate("--seeds", "1000", "--seconds", "12", "--forget")
    assert played.returncode == 0, played.stdout + played.stderr
    assert int(played.stdout.split()[0]) >= 40, "too few schedules to mean anything"


@pytest.mark.slow
def test_bugs_that_are_built_in_are_found() -> None:
    found = simulate("--mutations")
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_seed_is_always_the_same_schedule() -> None:
    first, second = simulate("--trace", "3"), simulate("--trace", "3")
    assert len(first.stdout.splitlines()) > 30
    assert first.stdout == second.stdout
