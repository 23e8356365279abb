"""Sends the inputs of a lane through its daemon, and looks what became of each."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.record.util import calc_crc32c

from tests.chaos.daemons import Daemon, DaemonError
from tests.chaos.world import World
from tests.corpus.case import NAME, Case, Place, Row, Spoil, fate
from tests.corpus.lanes import SETTINGS
from tests.corpus.lanes import Daemon as LaneDaemon
from tests.intake.test_poller import CRC_FROM, batches, segment, spoil
from v2td.speech.decoder_slot import NICE

CASE_SECONDS = 60.0  # one by one
ALL_SECONDS = 150.0  # all that are under way at once
LOOK_SECONDS = 0.05
MAX_REQUEST_BYTES = 200_000_000  # before compression
CRC_AT = CRC_FROM - 4  # the checksum of a batch
SETTLE_SECONDS = 5.0  # from the last row to the record's end

_ROWS = """
SELECT kafka_offset, record_index, id::text, job_id, tenant, audio_url, text, truncated, metadata, timings,
    audio_seconds, extract(epoch FROM created_at) AS created FROM transcriptions
"""
_FAILURES = """
SELECT kafka_offset, record_index, id::text, job_id, audio_url, error_class, reason, attempts,
    extract(epoch FROM created_at) AS created FROM failures
"""


@dataclass(slots=True)
class Got:
    """What became of an input: `problem` says what is wrong with it. `rss_bytes` is the decoder child's peak."""

    case: Case
    fates: list[str] = field(default_factory=list)
    seconds: float = 0.0
    rss_bytes: int | None = None
    reason: str = ""
    problem: str | None = None


@dataclass(slots=True)
class LaneResult:
    """What a lane's daemon did; `problems` are about all of it."""

    got: list[Got]
    daemon_deaths: int = 0
    lost: int = 0
    problems: list[str] = field(default_factory=list)


class LaneRun:
    """One lane: its world, its daemon, its inputs."""

    def __init__(
        self, world: World, place: Place, lane: LaneDaemon, cases: Sequence[Case], on_done: Callable[[int], None]
    ) -> None:
        self._world = world
        self._settings = {
            **SETTINGS,
            "fetch__file_roots": [str(place.folder)],
            "s3__endpoint_url": place.web.url,
            **lane.settings,
        }
        self._lane = lane
        self._result = LaneResult([Got(case) for case in cases])
        self._sent: dict[int, tuple[Got, float]] = {}  # by offset: when
        self._on_done = on_done
        self._done = 0

    async def run(self) -> LaneResult:
        """Send all inputs; the daemon has to be there at the end, and to stop when it is told to."""
        result = self._result
        async with AsyncExitStack() as stack:
            producers = {
                codec: await stack.enter_async_context(
                    AIOKafkaProducer(
                        bootstrap_servers=self._world.services.kafka_bootstrap,
                        max_request_size=MAX_REQUEST_BYTES,
                        compression_type=codec,
                    )
                )
                for codec in {got.case.codec for got in result.got}
            }
            waiting = deque(result.got)
            while any(got.case.spoil is not None for got in waiting):  # on disk, before the daemon reads them
                await self._send(producers, got := waiting.popleft())
                if got.case.spoil is not None:
                    spoil_batch(self._world.topic, got.case.spoil)
            daemon = await self._world.daemons.start(
                "corpus",
                failpoints=self._lane.failpoints,
                member=self._lane.lane,
                **self._settings,
            )
            for got in waiting:
                before = reset_peak(decoder_of(daemon)) if self._lane.one_by_one else None
                await self._send(producers, got)
                if self._lane.one_by_one:
                    await self._until_done(CASE_SECONDS, daemon)
                    got.rss_bytes = peak_rss(before)
            await self._until_done(ALL_SECONDS, daemon)
            await self._end(daemon)
        return result

    async def _send(self, producers: Mapping[str | None, AIOKafkaProducer], got: Got) -> None:
        case = got.case
        now = time.time()
        at = await producers[case.codec].send_and_wait(
            self._world.topic,
            case.value,
            key=case.key,
            partition=0,
            headers=list(case.headers),
            timestamp_ms=case.timestamp_ms,
        )
        self._sent[at.offset] = (got, now)

    async def _until_done(self, seconds: float, daemon: Daemon) -> None:
        """Wait until everything that was sent has its outcomes, or time is up, or the daemon is gone."""
        wanted = sum(got.case.outcomes for got, _ in self._sent.values())
        end = time.monotonic() + seconds
        while daemon.running and time.monotonic() < end:
            done = await self._world.done()
            self._on_done(done - self._done)
            self._done = done
            if done >= wanted:
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _end(self, daemon: Daemon) -> None:
        result = self._result
        if daemon.running:
            await self._look_at(daemon)
            try:
                await self._world.daemons.stop(daemon)
            except DaemonError as error:
                result.problems.append(str(error))
        else:
            result.daemon_deaths += 1
            result.problems.append(f"the daemon ended with {daemon.process.returncode}:\n{daemon.tail()}")
        result.problems += log_problems(daemon.log)
        await self._judge()

    async def _look_at(self, daemon: Daemon) -> None:
        """Nothing may hang, and nothing of the inputs may be in the metrics."""
        end = time.monotonic() + SETTLE_SECONDS
        while (in_flight := (await daemon.status())["in_flight"]) and time.monotonic() < end:
            await asyncio.sleep(LOOK_SECONDS)
        if in_flight:
            self._result.problems.append(f"{in_flight} records are still in flight")
        metrics = await daemon._get("metrics")
        self._result.problems += [
            f"{word!r} is in the metrics" for word in ("canary", ".test", "127.0.0.9") if word in metrics
        ]

    async def _judge(self) -> None:
        rows = await self._rows()
        letters = await dead_letters(self._world)
        committed = await self._world.auditor.committed()
        end = committed.get(TopicPartition(self._world.topic, 0), 0)
        for offset, (got, sent) in self._sent.items():
            found = rows.pop(offset, [])
            if not found and offset < end:
                self._result.lost += 1
            judge(got, found, sent, letters)
            if offset >= end:
                got.problem = got.problem or "not committed"
        if rows:
            self._result.problems.append(f"outcomes of records that nobody sent: {sorted(rows)}")

    async def _rows(self) -> dict[int, list[Row]]:
        connection = await asyncpg.connect(self._world.database)
        try:
            found: dict[int, list[Row]] = {}
            for query in (_ROWS, _FAILURES):
                for row in await connection.fetch(query):
                    found.setdefault(row["kafka_offset"], []).append(dict(row))
            return found
        finally:
            await connection.close()


def judge(got: Got, rows: Sequence[Row], sent: float, letters: frozenset[str]) -> None:
    """Say what became of an input, and what is wrong with that."""
    case = got.case
    got.fates = sorted({fate(row) for row in rows})
    if rows:
        got.seconds = max(float(row["created"]) for row in rows) - sent
        got.reason = next((str(row["reason"]) for row in rows if "reason" in row), "")
    problems = []
    if len(rows) != case.outcomes:
        problems.append(f"{len(rows)} outcomes instead of {case.outcomes}")
    problems += [f"{each} instead of {case.expected}" for each in got.fates if not case.meets(each)]
    problems += [problem for row in rows if case.check and (problem := case.check(row))]
    problems += ["no dead letter" for row in rows if "error_class" in row and row["id"] not in letters]
    problems += [] if got.reason.isprintable() else ["its reason is not printable"]
    if got.rss_bytes is not None and got.rss_bytes > case.max_rss_bytes:
        problems.append(f"{got.rss_bytes / 1e6:.0f} MB instead of {case.max_rss_bytes / 1e6:.0f} at most")
    got.problem = "; ".join(problems) or None


def spoil_batch(topic: str, how: Spoil) -> None:
    """Make the last batch of the topic unreadable on the broker's disk."""
    if how == "nonsense":
        spoil(topic, -1)
    elif how == "name":
        _write_over(topic, NAME.encode(), b"\xff" * len(NAME))
    else:
        spoil(topic, -1, valid_crc=True, codec=how)


def _write_over(topic: str, old: bytes, new: bytes) -> None:
    """Change bytes of the topic's last batch, and its checksum with them."""
    path = segment(topic)
    log = path.read_bytes()
    at, length = batches(log)[-1]
    body = log[at + CRC_FROM : at + length].replace(old, new)
    with path.open("r+b") as file:  # in place: the broker has it open
        file.seek(at + CRC_AT)
        file.write(struct.pack(">I", calc_crc32c(body)) + body)


def decoder_of(daemon: Daemon) -> int | None:
    """Return the process of the daemon's one decoder child, which alone is nice."""
    for each in psutil.Process(daemon.process.pid).children(recursive=True):
        with suppress(psutil.Error):
            if each.nice() == NICE:
                return int(each.pid)
    return None


def reset_peak(pid: int | None) -> int | None:
    """Have the kernel forget the process's peak RSS (proc(5), clear_refs); returns its pid when that worked."""
    if pid is None:
        return None
    with suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        return pid
    return None


def peak_rss(pid: int | None) -> int | None:
    """Return the process's peak RSS in bytes since `reset_peak`; None when it has ended."""
    if pid is None:
        return None
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def log_problems(log: Path) -> list[str]:
    """Say what inputs did to the log: each line is to be one JSON object, without a secret or a control character."""
    problems = []
    for line in log.read_bytes().decode(errors="replace").split("\n"):
        if "canary" in line:
            problems.append(f"a secret in the log: {line:.300}")
        if not line.isprintable():
            problems.append(f"a character that steers a terminal, in the log: {line!a:.300}")
        if line:
            try:
                json.loads(line)
            except ValueError:
                problems.append(f"a line of the log that is not ours: {line:.300}")
    return problems


async def dead_letters(world: World) -> frozenset[str]:
    """Return the ids of all dead letters."""
    async with AIOKafkaConsumer(
        bootstrap_servers=world.services.kafka_bootstrap, auto_offset_reset="earliest"
    ) as consumer:
        partition = TopicPartition(world.dead_letters, 0)
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        found: set[str] = set()
        while await consumer.position(partition) < end:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found |= {value.decode() for each in records for name, value in each.headers if name == "v2td-id"}
        return frozenset(found)
