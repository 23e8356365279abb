"""Contestants that read Kafka, download, and write to Postgres: the first seed's two consumers, and v2td itself."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka import AIOKafkaProducer

from bench.contestants import seed_consumer, seed_database
from bench.contestants.contestant import ContestError, Heard, ProcessTree, running
from bench.contestants.finish_line import FinishLine, finish_line
from bench.contestants.program import START_SECONDS, longest_seconds
from bench.contestants.web import Site, WebServer, web_server
from bench.context import Context
from bench.corpus import Clip
from bench.deployment import Config, Deployment, deploy
from v2td import store

TRICKLE_SECONDS = 120.0  # for the last ones of a trickle


@dataclass(frozen=True, slots=True)
class Arena:
    """What the consumers of one measure share: the services, a web server and the model's folder."""

    context: Context
    web: WebServer
    model: Path

    def log(self, name: str) -> Path:
        """Return a fresh log file's path."""
        return self.context.folder / f"{name}-{secrets.token_hex(3)}.log"


@asynccontextmanager
async def arena(context: Context, model: Path) -> AsyncIterator[Arena]:
    """Open the web server."""
    async with web_server() as web:
        yield Arena(context, web, model)


class Consumer:
    """A consumer that is ready, and what is needed to see it work."""

    def __init__(
        self, name: str, tree: ProcessTree, *, place: Deployment, site: Site, line: FinishLine, texts: str
    ) -> None:
        self.name = name
        self._tree = tree
        self._place = place
        self._site = site
        self._line = line
        self._texts = texts  # SQL: job_id and text of all jobs in $1
        self._runs = itertools.count()

    async def hear(self, clips: Sequence[Clip]) -> Heard:
        """Put all messages into the topic as one batch; the clock runs from the first download to the last row."""
        run = next(self._runs)
        ids = {f"{run}/{clip.name}": clip for clip in clips}
        self._site.serve(clip.path for clip in clips)
        messages = [self._message(job_id, clip) for job_id, clip in ids.items()]
        before = self._tree.cpu_seconds()
        seconds = longest_seconds(clips)
        try:
            async with self._tree.watched(), asyncio.timeout(seconds):
                await self._place.produce(messages)
                await self._line.until(ids)
        except TimeoutError:
            late = len(ids.keys() - self._line.times.keys())
            what = f"{late} of {len(ids)} without a row after {seconds:.0f} s"
            raise ContestError(f"{what}:\n{self._tree.last_words()}") from None
        began = self._site.first_request
        assert began is not None, "rows without a download"
        finished = {clip.name: self._line.times[job_id] - began for job_id, clip in ids.items()}
        texts = dict(await self._place.fetch(self._texts, list(ids)))
        if missing := ids.keys() - texts.keys():
            raise ContestError(f"{len(missing)} of {len(ids)} were not transcribed in this run")
        return Heard(
            seconds=max(finished.values()),
            finished=finished,
            texts={clip.name: texts[job_id] for job_id, clip in ids.items()},
            cpu_seconds=self._tree.cpu_seconds() - before,
            peak_rss_bytes=self._tree.peak_rss_bytes,
        )

    async def begin(self, clip: Clip) -> None:
        """Put one recording into the topic and return when it is being downloaded."""
        self._site.serve([clip.path])
        await self._place.produce([self._message(f"{next(self._runs)}/{clip.name}", clip)])
        while self._site.first_request is None:
            self._tree.raise_if_dead()
            await asyncio.sleep(0.1)

    async def trickle(self, arrivals: Sequence[tuple[float, Clip]]) -> list[float]:
        """Send each clip at its time, in seconds from now; return the seconds that each took to its row."""
        run = next(self._runs)
        self._site.serve(clip.path for _, clip in arrivals)
        sent: dict[str, float] = {}
        producer = AIOKafkaProducer(bootstrap_servers=self._place.services.kafka_bootstrap)
        await producer.start()
        try:
            began = time.monotonic()
            for number, (at, clip) in enumerate(arrivals):
                await asyncio.sleep(began + at - time.monotonic())
                job_id = f"{run}/{number}"
                sent[job_id] = time.monotonic()
                await producer.send_and_wait(self._place.topic, self._message(job_id, clip))
            async with asyncio.timeout(TRICKLE_SECONDS):
                await self._line.until(sent)
        finally:
            await producer.stop()
        return [self._line.times[job_id] - at for job_id, at in sent.items()]

    def _message(self, job_id: str, clip: Clip) -> bytes:
        message = {"id": job_id, "audio_url": self._site.url(clip.path), "language": clip.language}
        return json.dumps(message).encode()


@asynccontextmanager
async def original(arena: Arena) -> AsyncIterator[Consumer]:
    """Open the first seed's original consumer."""
    async with _seed(arena, "original", "seed_original", {}) as consumer:
        yield consumer


@asynccontextmanager
async def optimized(arena: Arena, workers: int) -> AsyncIterator[Consumer]:
    """Open the first seed's optimized consumer with so many threads, and the rest as its guide has it."""
    environment = {
        "STT_MAX_WORKERS": str(workers),
        "STT_BATCH_SIZE": "10",
        "DB_POOL_SIZE": "10",
        "DB_MAX_OVERFLOW": "20",
    }
    async with _seed(arena, f"optimized-{workers}", "seed_optimized", environment) as consumer:
        yield consumer


@asynccontextmanager
async def v2td_daemon(arena: Arena, mode: str, changes: Config | None = None) -> AsyncIterator[Consumer]:
    """Open `v2td run` in one of its window modes; `changes` are settings by section."""
    name = f"v2td-{mode}"
    async with deploy(arena.context, partitions=1) as place:
        await store.upgrade(place.dsn)
        path = place.config(daemon_config(arena, mode, changes))
        log = arena.log(name)
        command = [sys.executable, "-m", "v2td", "run", "--config", str(path)]
        async with (
            finish_line(place.dsn, "transcriptions", failures="failures") as line,
            running(command, log) as tree,
        ):
            await _until(tree, lambda: _has_logged(log, "ready"))
            # A text taken from an earlier round's would be no work at all.
            texts = "SELECT job_id, text FROM transcriptions WHERE job_id = ANY($1) AND cached_from IS NULL"
            yield Consumer(name, tree, place=place, site=arena.web.site(), line=line, texts=texts)


def daemon_config(arena: Arena, mode: str, changes: Config | None = None) -> Config:
    """Return what differs from v2td's defaults: the model, the mode, and that the web server is on this machine."""
    model = _declared_short(arena) if mode == "short" else arena.model
    config: Config = {
        "engine": {"model": str(model), "window_mode": mode},
        "fetch": {"allowed_ports": [arena.web.port]},
        "admin": {"port": 0},
        "log": {"format": "json", "level": "info"},
    }
    for section, keys in (changes or {}).items():
        config.setdefault(section, {}).update(keys)
    return config


def _declared_short(arena: Arena) -> Path:
    """Return a copy of the model that says it takes short windows, though nobody adapted it: to see what they cost."""
    folder = arena.context.folder / f"{arena.model.name}-short"
    if not folder.exists():
        shutil.copytree(arena.model, folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(config | {"short_windows": True}), encoding="utf-8")
    return folder


@asynccontextmanager
async def _seed(arena: Arena, name: str, module: str, environment: Mapping[str, str]) -> AsyncIterator[Consumer]:
    async with deploy(arena.context, partitions=1) as place:
        database: Any = await asyncpg.connect(place.dsn)
        try:
            await database.execute(seed_database.SCHEMA)
        finally:
            await database.close()
        log = arena.log(name)
        settings = {
            "KAFKA_BOOTSTRAP_SERVERS": arena.context.services.kafka_bootstrap,
            "KAFKA_TOPIC": place.topic,
            "KAFKA_GROUP_ID": place.topic,
            "DATABASE_URL": place.dsn,
            "WHISPER_MODEL_SIZE": str(arena.model),
            "WHISPER_DEVICE": "cpu",
            "WHISPER_COMPUTE_TYPE": "int8",
            **environment,
        }
        completed = f"NEW.status = '{seed_database.COMPLETED}'"
        async with (
            finish_line(place.dsn, "transcripts", when=completed) as line,
            running([sys.executable, "-m", f"bench.contestants.{module}"], log, settings) as tree,
        ):
            await _until(tree, lambda: seed_consumer.READY in log.read_text(encoding="utf-8").splitlines())
            texts = "SELECT job_id, full_text FROM transcripts WHERE job_id = ANY($1)"
            yield Consumer(name, tree, place=place, site=arena.web.site(), line=line, texts=texts)


async def _until(tree: ProcessTree, ready: Callable[[], bool]) -> None:
    async with asyncio.timeout(START_SECONDS):
        while not ready():
            tree.raise_if_dead()
            await asyncio.sleep(0.1)


def _has_logged(log: Path, event: str) -> bool:
    lines = log.read_text(encoding="utf-8").splitlines()
    return any(json.loads(line).get("event") == event for line in lines if line.startswith("{"))
