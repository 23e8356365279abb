"""What a measure is given, and what it gives back."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.services.state import Services

Size = Literal["quick", "default", "full"]
SIZES: tuple[Size, ...] = get_args(Size)
Cell = str | float | int | None


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the report; `note` stands below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a plot: equally many x and y."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Lines:
    """A plot of curves; `name` is its file's name without the ending."""

    name: str
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Bars:
    """A plot of one value per label."""

    name: str
    title: str
    y_label: str
    bars: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Distribution:
    """A plot of the share of samples below each value, one curve per label."""

    name: str
    title: str
    x_label: str
    samples: tuple[tuple[str, tuple[float, ...]], ...]


Plot = Lines | Bars | Distribution


@dataclass(frozen=True, slots=True)
class Findings:
    """What a measure found: numbers for latest.json, and what the report shows.

    A problem is something that makes the run fail although the measure ended: a fast wrong answer, for one.
    """

    values: dict[str, float] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """The real services, the size of this run, a folder that goes with it, and a line of progress for the user."""

    services: Services
    size: Size
    folder: Path
    say: Callable[[str], None]

    def by_size(self, quick: float, default: float, full: float) -> float:
        """Return the one for this run's size."""
        return {"quick": quick, "default": default, "full": full}[self.size]

    @asynccontextmanager
    async def database(self, name: str = "bench") -> AsyncIterator[str]:
        """Yield the DSN of an empty database, dropped afterwards even if something is still connected to it."""
        unique = f"{name}_{secrets.token_hex(6)}"
        server = await asyncpg.connect(self.services.postgres_dsn)
        try:
            await server.execute(f'CREATE DATABASE "{unique}"')
            try:
                yield self.services.postgres_dsn.removesuffix("/postgres") + f"/{unique}"
            finally:
                await server.execute(f'DROP DATABASE "{unique}" WITH (FORCE)')
        finally:
            await server.close()

    @asynccontextmanager
    async def topic(self, partitions: int = 1, name: str = "bench") -> AsyncIterator[str]:
        """Yield the unique name of an empty topic, deleted afterwards."""
        unique = f"{name}-{secrets.token_hex(6)}"
        admin = AIOKafkaAdminClient(bootstrap_servers=self.services.kafka_bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(unique, partitions, 1)])
            try:
                yield unique
            finally:
                await admin.delete_topics([unique])
        finally:
            await admin.close()
