"""What a run found, as one table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.chaos.fault import Size, percentile
from tests.chaos.programme import Ran
from v2td import failpoints

COLUMNS = ("fault", "injected", "recovered p50 / p95", "lost", "duplicated", "orphans", "redone", "seconds", "")


def as_json(ran: Sequence[Ran], size: Size, seconds: float, *, whole: bool) -> dict[str, Any]:
    """Return what goes to latest.json."""
    unvisited = not_visited(ran)
    return {
        "size": size.pick("short", "long"),
        "seconds": round(seconds, 1),
        "passed": passed(ran, whole=whole),
        "faults": {each.fault.name: _fault_as_json(each) for each in ran},
        "failpoints": {place: place not in unvisited for place in failpoints.PLACES},
    }


def passed(ran: Sequence[Ran], *, whole: bool) -> bool:
    """Whether nothing is wrong; in a `whole` run, one of all faults, each failpoint has to have gone off as well."""
    return all(each.result.passed for each in ran) and not (whole and not_visited(ran))


def not_visited(ran: Sequence[Ran]) -> list[str]:
    """Return the failpoints that no fault made go off."""
    visited = {place for each in ran for place in each.result.failpoints}
    return [place for place in failpoints.PLACES if place not in visited]


def write(folder: Path, found: dict[str, Any]) -> Path:
    """Write latest.json; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "latest.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    return path


def show(ran: Sequence[Ran], console: Console, *, whole: bool) -> None:
    """Print the table, which failpoints went off, and every problem."""
    table = Table(*COLUMNS, box=None, header_style="bold", pad_edge=False)
    for each in ran:
        result = each.result
        table.add_row(
            each.fault.name,
            f"{result.cycles}",
            _recovered(result.recoveries),
            f"{result.lost}",
            f"{result.duplicates}",
            f"{result.orphans}",
            f"{result.redone_ratio:.1%}",
            f"{each.seconds:.0f}",
            "[green]passed[/]" if result.passed else "[bold red]FAILED[/]",
        )
    console.print(table)
    unvisited = not_visited(ran)
    count = len(failpoints.PLACES)
    console.print(f"failpoints that went off: {count - len(unvisited)} of {count}")
    if unvisited:
        console.print(f"never: {', '.join(unvisited)}", style="bold red" if whole else "dim")
    for each in ran:
        for problem in each.result.problems:
            console.print(f"{each.fault.name}: {problem}", style="red", markup=False)


def _recovered(recoveries: Sequence[float]) -> str:
    half, most = percentile(recoveries, 0.5), percentile(recoveries, 0.95)
    return "–" if half is None or most is None else f"{half:.1f} / {most:.1f} s"


def _fault_as_json(ran: Ran) -> dict[str, Any]:
    result = ran.result
    return {
        "summary": ran.fault.summary,
        "passed": result.passed,
        "cycles": result.cycles,
        "records": result.records,
        "lost": result.lost,
        "duplicates": result.duplicates,
        "orphans": result.orphans,
        "redone_ratio": round(result.redone_ratio, 4),
        "recovery_p50_seconds": _rounded(percentile(result.recoveries, 0.5)),
        "recovery_p95_seconds": _rounded(percentile(result.recoveries, 0.95)),
        "seconds": round(ran.seconds, 1),
        "figures": result.figures,
        "failpoints": sorted(result.failpoints),
        "problems": result.problems,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
