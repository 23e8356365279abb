"""Send the jobs and watch their outcomes arrive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import asyncpg
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from v2td.demo.jobs import DemoJob, Heard, Outcome, Place, dead_letter_ids, demo_jobs, read_outcomes, submit
from v2td.demo.session import Session
from v2td.demo.verdict import Result, Results

JOBS_SECONDS = 120  # a hung daemon must not hang `--once`
POLL_SECONDS = 0.1


async def run_jobs(session: Session, console: Console) -> Results:
    """Submit every demo job and return when each has its outcome, or after JOBS_SECONDS."""
    jobs = demo_jobs(session.audio_url)
    started = time.monotonic()
    sent = await submit(session, jobs)
    console.print(f"{len(sent)} jobs are in the topic.")
    ended = await _watch(session, sent, console)
    wall_seconds = time.monotonic() - started
    letters = await dead_letter_ids(session)
    results = []
    for place, job in sent.items():
        outcome = ended.get(place)
        results.append(Result(job, outcome, dead_letter=outcome is not None and outcome.id in letters))
    return Results(tuple(results), wall_seconds)


async def follow(session: Session, console: Console) -> None:
    """Print every outcome that is not there yet, until cancelled; ServiceError when the daemon ends."""
    async with asyncpg.create_pool(session.dsn, min_size=1, max_size=1) as database:
        known = set(await read_outcomes(database))
        while True:
            session.raise_if_dead()
            for place, outcome in (await read_outcomes(database)).items():
                if place not in known:
                    known.add(place)
                    console.print(line(f"offset {place.partition}:{place.offset}", outcome))
            await asyncio.sleep(POLL_SECONDS)


async def _watch(session: Session, sent: Mapping[Place, DemoJob], console: Console) -> dict[Place, Outcome]:
    """The outcomes of the records sent, a line and a step of the bar for each as it becomes durable."""
    ended: dict[Place, Outcome] = {}
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    deadline = time.monotonic() + JOBS_SECONDS
    async with asyncpg.create_pool(session.dsn, min_size=1, max_size=1) as database:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task("jobs", total=len(sent))
            while len(ended) < len(sent) and time.monotonic() < deadline:
                session.raise_if_dead()
                for place, outcome in (await read_outcomes(database)).items():
                    if place in sent and place not in ended:
                        ended[place] = outcome
                        console.print(line(sent[place].name, outcome))
                        progress.advance(bar)
                await asyncio.sleep(POLL_SECONDS)
    return ended


def line(name: str, outcome: Outcome) -> str:
    """One outcome in one line, in rich's markup."""
    if isinstance(outcome, Heard):
        return (
            f"  [green]transcribed[/] {escape(name)}: {outcome.audio_seconds:.1f} s of {outcome.language} "
            f"in {outcome.seconds_taken:.1f} s"
        )
    return f"  [red]failed[/] {escape(name)}: {outcome.error_class}"
