"""What a run of the corpus found, as one table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.corpus.programme import Ran

COLUMNS = ("input", "expected", "got", "seconds", "peak RSS", "")


def as_json(ran: Ran, seconds: float) -> dict[str, Any]:
    """Return what goes to latest.json."""
    return {
        "inputs": len(ran.got),
        "wrong": sum(got.problem is not None for got in ran.got),
        "daemon_deaths": sum(result.daemon_deaths for result in ran.lanes.values()),
        "lost": sum(result.lost for result in ran.lanes.values()),
        "trap_contacts": len(ran.reached),
        "seconds": round(seconds, 1),
        "problems": ran.problems,
        "cases": {
            got.case.name: {
                "lane": lane,
                "expected": got.case.expected,
                "got": got.fates,
                "reason": got.reason,
                "seconds": round(got.seconds, 2),
                "peak_rss_bytes": got.rss_bytes,
                "problem": got.problem,
            }
            for lane, result in ran.lanes.items()
            for got in result.got
        },
    }


def write(folder: Path, found: dict[str, Any]) -> Path:
    """Write latest.json; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "latest.json"
    path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return path


def show(ran: Ran, console: Console) -> None:
    """Print the table, and every problem."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="ellipsis" if column == "expected" else "fold", no_wrap=column == "expected")
    for got in ran.got:
        table.add_row(
            escape(ascii(got.case.name)[1:-1]),
            got.case.expected,
            ", ".join(got.fates) or "nothing",
            f"{got.seconds:.2f}",
            "" if got.rss_bytes is None else f"{got.rss_bytes / 1e6:.0f} MB",
            "[bold red]WRONG[/]" if got.problem else "",
        )
    console.print(table)
    for problem in ran.problems:
        console.print(problem, style="red", markup=False)
