"""The command: which measures run, what a failing one does to the others, and the exit status."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from bench import __main__ as command
from bench.context import Context, Findings
from bench.measures import Measure
from tests.services import state
from tests.services.state import Services

SERVICES = Services(*("nowhere" for _ in Services.__slots__))


@pytest.fixture
def measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two measures that work and two that do not; the services are there, but none of these asks them."""
    good = ModuleType("good")

    async def measure(context: Context) -> Findings:
        assert context.folder.is_dir()
        return Findings({"good": context.by_size(1, 2, 3)})

    bad = ModuleType("bad")

    async def fail(_context: Context) -> Findings:
        raise OSError("gone")

    good.measure, bad.measure = measure, fail  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, "good", good)
    monkeypatch.setitem(sys.modules, "bad", bad)
    monkeypatch.setattr(
        command,
        "MEASURES",
        (
            Measure("missing", "no_such_module", ("x",)),
            Measure("bad", "bad", ("y",)),
            Measure("good", "good", ("good",)),
        ),
    )
    monkeypatch.setattr(state, "read", lambda _file: state.State(None, "", [], SERVICES))


@pytest.mark.usefixtures("measures")
def test_a_failing_measure_leaves_the_others_alone_and_the_exit_status_tells(tmp_path: Path) -> None:
    assert command.main(["--quick", "--results", str(tmp_path)]) == 1
    found = json.loads((tmp_path / "latest.json").read_text())
    assert found["good"] == 1
    assert found["x"] is None
    assert found["y"] is None
    assert "bad: OSError: gone" in found["problems"]
    assert any(problem.startswith("missing: ModuleNotFoundError") for problem in found["problems"])


@pytest.mark.usefixtures("measures")
def test_only_the_named_measures_run(tmp_path: Path) -> None:
    assert command.main(["--full", "--only", "good", "--results", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "latest.json").read_text())
    assert found["good"] == 3
    assert "x" not in found
    assert found["problems"] == []


def test_without_services_it_says_what_brings_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(state, "read", lambda _file: None)
    assert command.main([]) == 2
    assert "make bench" in capsys.readouterr().err
