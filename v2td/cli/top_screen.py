"""The view of `v2td top`: figures in, lines out, as many and as wide as there is room for.

Whatever messages, brokers or rows brought in (topics, names, reasons) goes through `printable`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING

from rich.text import Text

from v2td.cli.failures import printable
from v2td.cli.top_words import UNKNOWN, ago, number, percent, seconds, size

if TYPE_CHECKING:
    from v2td.ops.top_figures import Daemon, Figures, InstanceFigures, Topic

GAP = "  "
FIRST_WIDTH = 12  # of the first column, which is cut before others are left out
KEYS = "q quit  p pause  s sort by {}  space look now"
ORDERS = ("name", "CPU", "memory")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of numbers; those of the highest `rank` are the first to be left out on a narrow screen."""

    heading: str
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Section:
    """A table: its rows begin with a name, and have a cell for each column; `styles` are those of the rows."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    styles: tuple[str, ...] = ()


@dataclass(slots=True)
class View:
    """What is shown: `figures` None before the first look; the rest is what keys change."""

    interval_seconds: float
    figures: Figures | None = None
    paused: bool = False
    order: int = 0


def lines(view: View, width: int, height: int | None) -> list[Text]:
    """Return the screen, in lines that fit; `height` None: all there is, and no word on keys."""
    if view.figures is None:
        return [_cut(Text("v2td top: looking …"), width)]
    above = [_cut(each, width) for each in (*head(view, view.figures), *trouble(view.figures, width))]
    found = [each for each in sections(view.figures, ORDERS[view.order]) if each.rows]
    below = [] if height is None else [_cut(Text(KEYS.format(ORDERS[view.order]), "dim"), width)]
    room = None if height is None else height - len(above) - len(below)
    counts = allotted([len(each.rows) for each in found], room)
    tables = [table(each, count, width) for each, count in zip(found, counts, strict=True) if count]
    # Empty lines between the tables are the first to go.
    used = sum(map(len, tables))
    airy = room is None or used + len(tables) <= room
    body = [line for each in tables for line in ([Text("")] if airy else []) + each]
    padding = [] if room is None else [Text("")] * (room - len(body))
    return (above + body + padding + below)[:height]


def allotted(sizes: Sequence[int], room: int | None) -> list[int]:
    """Return how many rows each table may show: in turns, one each, and one line for the heading of each."""
    if room is None:
        return list(sizes)
    counts = [0] * len(sizes)
    given = True
    while given:
        given = False
        for index, wanted in enumerate(sizes):
            cost = 1 if counts[index] else 2
            if counts[index] < wanted and cost <= room:
                counts[index] += 1
                room -= cost
                given = True
    return counts


def head(view: View, figures: Figures) -> list[Text]:
    """Return what is told in lines, the most important first."""
    title = Text.assemble(("v2td top", "bold"), f"  {figures.at[:19].replace('T', ' ')} UTC")
    title.append(f"  every {number(view.interval_seconds)} s", "dim")
    if view.paused:
        title.append("  PAUSED", "bold reverse")
    found = [title]
    if (messages := figures.messages) is not None:
        flow = f"in {number(messages.in_per_minute)}/min", f"out {number(messages.out_per_minute)}/min"
        members = f"members {messages.members} ({printable(messages.state)})"
        found.append(_line("messages", *flow, f"lag {number(messages.lag)}", members, f"group {messages.group}"))
    if (backlog := figures.backlog) is not None:
        drain, cores = seconds(backlog.drain_seconds), number(backlog.cores_needed)
        audio = f"{seconds(backlog.audio_seconds)} of audio"
        found.append(_line("backlog", audio, f"time to drain {drain}", f"cores to drain in 1 h {cores}"))
    if (jobs := figures.jobs) is not None:
        rate = None if jobs.error_rate is None else jobs.error_rate * 100
        errors = ", ".join(f"{name} {number(count)}" for name, count in jobs.errors.items())
        error = f"errors {percent(rate)}" + (f": {errors}" if errors else "")
        window = f"in {seconds(jobs.window_seconds)}"
        audio = f"audio {number(jobs.audio_seconds_per_second)} s/s"
        found.append(_line("jobs", f"{number(jobs.per_minute)}/min {window}", audio, error))
    machine = figures.machine
    memory = f"memory {size(machine.memory_bytes)} of {size(machine.memory_total_bytes)}"
    found.append(_line("machine", f"CPU {percent(machine.cpu_percent)} of {machine.cores} cores", memory))
    for daemon in figures.daemons:
        found += _daemon(daemon)
    if jobs is not None and (last := jobs.last_failure) is not None:
        found.append(_line("failed", ago(last.ago_seconds), f"{last.error_class}: {last.reason}"))
    return found


def trouble(figures: Figures, width: int) -> list[Text]:
    """Return why sources were not reached, in two lines each where one is too short."""
    where = {"Kafka": figures.kafka, "Postgres": figures.database}
    found = []
    for name, reason in figures.trouble.items():
        told = printable(f"{name} {where[name]}" if where.get(name) else name) + f": not reached: {printable(reason)}"
        found += [Text(line, "red") for line in wrap(told, width, max_lines=2, placeholder="…")]
    return found


def _daemon(daemon: Daemon) -> list[Text]:
    queue = f"queue {number(daemon.queued_windows)} ({seconds(daemon.queued_audio_seconds)})"
    wait, lag = seconds(daemon.queue_wait_p95_seconds), seconds(daemon.loop_lag_p95_seconds)
    name = daemon.address.partition("://")[2] or daemon.address
    told = [_line("daemon", f"in flight {daemon.in_flight}", queue, f"wait p95 {wait}", f"loop p95 {lag}", name)]
    troubles = [
        *([f"not ready: {daemon.not_ready_because}"] if daemon.not_ready_because else []),
        *([f"takes no records: {daemon.held}"] if daemon.held and not daemon.not_ready_because else []),
        *(f"provider {each} is left alone" for each in daemon.open_providers),
    ]
    return told + [_line("", each, name, style="yellow") for each in troubles]


def sections(figures: Figures, order: str) -> list[Section]:
    """Return the tables, the most important first."""
    found = [_providers(figures), _instances(figures, order)]
    if figures.messages is not None and len(figures.messages.topics) > 1:
        found.append(_topics(figures.messages.topics))
    for daemon in figures.daemons:
        of = "" if len(figures.daemons) == 1 else f" of {daemon.address.partition('://')[2] or daemon.address}"
        found += [_stages(daemon, of), _slots(daemon, of)]
    return found


def _providers(figures: Figures) -> Section:
    columns = (
        *(Column("jobs/min"), Column("audio s/s", 2), Column("p50"), Column("p95", 1), Column("p99")),
        Column("cached", 3),
    )
    rows = tuple(
        (
            each.provider,
            number(each.per_minute),
            number(each.audio_seconds_per_second),
            *map(seconds, (each.p50_seconds, each.p95_seconds, each.p99_seconds)),
            number(each.cached),
        )
        for each in figures.providers
    )
    return Section("provider", columns, rows)


def _instances(figures: Figures, order: str) -> Section:
    columns = (
        Column("slots", 1),
        Column("CPU"),
        Column("memory"),
        Column("partitions", 2),
        Column("seen"),
        Column("", 3),
    )
    chosen = sorted(figures.instances, key=lambda each: (each.stale, _rank(each, order), each.name))
    rows = tuple(
        (
            each.name,
            str(each.slots),
            percent(each.cpu_percent),
            size(each.rss_bytes),
            str(each.partitions),
            ("gone " if each.stale else "") + ago(each.seen_seconds_ago),
            each.version,
        )
        for each in chosen
    )
    return Section("instance", columns, rows, tuple("dim" if each.stale else "" for each in chosen))


def _rank(instance: InstanceFigures, order: str) -> float:
    return {"CPU": -(instance.cpu_percent or 0.0), "memory": -float(instance.rss_bytes)}.get(order, 0.0)


def _topics(topics: Sequence[Topic]) -> Section:
    columns = Column("lag"), Column("in/min"), Column("out/min"), Column("partitions", 1)
    rows = tuple(
        (each.topic, *map(number, (each.lag, each.in_per_minute, each.out_per_minute, each.partitions)))
        for each in sorted(topics, key=lambda each: -each.lag)
    )
    return Section("topic", columns, rows)


def _stages(daemon: Daemon, of: str) -> Section:
    rows = tuple(
        (each.stage, number(each.in_flight), seconds(each.p50_seconds), seconds(each.p95_seconds))
        for each in daemon.stages
    )
    return Section("stage" + of, (Column("in flight"), Column("p50"), Column("p95")), rows)


def _slots(daemon: Daemon, of: str) -> Section:
    columns = (
        *(Column("state"), Column("window p50"), Column("CPU"), Column("memory", 1)),
        *(Column("windows", 2), Column("restarts", 3)),
    )
    rows = tuple(
        (
            str(each.slot),
            each.state,
            seconds(each.window_p50_seconds),
            percent(each.cpu_percent),
            size(each.rss_bytes),
            number(each.windows),
            str(each.restarts),
        )
        for each in daemon.slots
    )
    return Section("slot" + of, columns, rows)


def table(section: Section, count: int, width: int) -> list[Text]:
    """Return the heading and the first `count` rows, none wider than `width` columns of the terminal."""
    left_out = f" ({count} of {len(section.rows)})" if count < len(section.rows) else ""
    headings = (section.title.upper() + left_out, *(each.heading for each in section.columns))
    rows = [tuple(map(printable, row)) for row in (headings, *section.rows[:count])]
    widths = [max(Text(cell).cell_len for cell in column) for column in zip(*rows, strict=True)]
    kept = list(range(1, len(headings)))

    def numbers_width() -> int:
        return sum(len(GAP) + widths[index] for index in kept)

    least = min(widths[0], max(FIRST_WIDTH, Text(rows[0][0]).cell_len))
    while least + numbers_width() > width and any(section.columns[index - 1].rank for index in kept):
        kept.remove(max(kept, key=lambda index: (section.columns[index - 1].rank, index)))
    first = max(1, min(widths[0], width - numbers_width()))
    styles = ("bold cyan", *(section.styles or ("",) * count))
    found = []
    for row, style in zip(rows, styles, strict=False):
        name = Text(row[0])
        name.truncate(first, overflow="ellipsis", pad=True)
        cells = "".join(GAP + " " * (widths[index] - Text(row[index]).cell_len) + row[index] for index in kept)
        line = _cut(Text(name.plain + cells), width)
        line.stylize(style)
        found.append(line)
    return found


def _line(label: str, *parts: str, style: str = "") -> Text:
    told = (GAP + " ").join(printable(each) or UNKNOWN for each in parts)
    return Text.assemble((f"{label:<9}", "bold"), (told, style))


def _cut(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    return line
