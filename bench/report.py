"""From findings to latest.json, report.md and the plots."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.context import Cell, Findings, Size, Table
from bench.measures import Measure

BUSY = 0.5  # load per CPU before the run


@dataclass(frozen=True, slots=True)
class Ran:
    """A measure that has run: its findings, or why there are none."""

    measure: Measure
    seconds: float
    findings: Findings = field(default_factory=Findings)
    failure: str | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything that makes the run fail, in words."""
        if self.failure is not None:
            return (self.failure,)
        missing = [key for key in self.measure.keys if key not in self.findings.values]
        return self.findings.problems + tuple(f"the key {key} is missing" for key in missing)


def latest(size: Size, machine: dict[str, Any], ran: Sequence[Ran]) -> dict[str, Any]:
    """Return the object of latest.json; a key that a failed measure owes is null."""
    result: dict[str, Any] = {"quick": size == "quick", "size": size}
    for each in ran:
        result |= dict.fromkeys(each.measure.keys)
        result |= {key: round(value, 5) for key, value in each.findings.values.items()}
    result["seconds"] = {each.measure.name: round(each.seconds, 1) for each in ran}
    result["problems"] = [f"{each.measure.name}: {problem}" for each in ran for problem in each.problems]
    result["machine"] = machine
    return result


def markdown(size: Size, machine: dict[str, Any], ran: Sequence[Ran]) -> str:
    """Return the report; its plots lie beside it."""
    problems = [f"* **{each.measure.name}**: {problem}" for each in ran for problem in each.problems]
    where = (
        f"{machine['cpu']}, {machine['cpus']} CPUs ({', '.join(machine['cpu_flags'])}), {machine['memory_gib']} GiB, "
        f"v2td {machine['v2td']}, {machine['date']}; load average before the run {machine['load_average_before']}."
    )
    if machine["load_average_before"] > BUSY * machine["cpus"]:
        where += " **The machine was busy with something else: do not trust this run.**"
    parts = [
        f"# Benchmark report ({size})",
        where,
        "Read the ratios: both sides of each were measured in this run, interleaved.",
        "\n".join(["## Problems", "", *problems]) if problems else "No problems.",
        *(_section(each) for each in ran),
    ]
    return "\n\n".join(parts) + "\n"


def write(folder: Path, size: Size, machine: dict[str, Any], ran: Sequence[Ran]) -> None:
    """Write latest.json, report.md and the plots into `folder`, which is made if need be."""
    from bench.plots import draw  # noqa: PLC0415 (matplotlib takes a second)

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(latest(size, machine, ran), indent=2, ensure_ascii=False)
    (folder / "latest.json").write_text(text + "\n", encoding="utf-8")
    (folder / "report.md").write_text(markdown(size, machine, ran), encoding="utf-8")
    for stale in folder.glob("*.png"):
        stale.unlink()
    for each in ran:
        for plot in each.findings.plots:
            draw(plot, folder)


def _section(ran: Ran) -> str:
    findings = ran.findings
    parts = [f"## {ran.measure.name}", f"Took {ran.seconds:.0f} s."]
    if ran.failure is not None:
        parts.append(f"Failed: {ran.failure}")
    if findings.values:
        rows = tuple((f"`{key}`", value) for key, value in sorted(findings.values.items()))
        parts.append(_table(Table("Values", ("key", "value"), rows)))
    parts += [_table(table) for table in findings.tables]
    parts += [f"![{plot.title}]({plot.name}.png)" for plot in findings.plots]
    parts += findings.notes
    return "\n\n".join(parts)


def _table(table: Table) -> str:
    header = ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    rows = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in table.rows]
    return "\n".join([f"**{table.title}**", "", *header, *rows, *(["", table.note] if table.note else [])])


def _cell(cell: Cell) -> str:
    match cell:
        case None:
            return "–"
        case float():
            return f"{cell:.4g}"
        case _:
            return str(cell).replace("|", "\\|")
