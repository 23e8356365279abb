"""Batches that cannot be read, made by changing a log segment of the real broker: passed over, nothing else is lost."""

import asyncio
import struct
from functools import partial
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c

from tests.conftest import MakeTopic
from tests.intake.conftest import Desk, MakeSettings, committed, intake_of, produce, running, until
from tests.services import state
from v2td import metrics
from v2td.config import KafkaSettings
from v2td.intake import Intake
from v2td.jobs import Coordinates

HEADER = struct.Struct(">qiibIhiqqqhii")  # of a batch: base offset, length, leader epoch, magic, CRC, attributes, …
CRC_FROM = 21  # the checksum is of what begins here


def segment(topic: str, partition: int = 0) -> Path:
    running_services = state.read(state.file_in_use())
    assert running_services is not None
    # Kafka's folder only: the others' files come and go while one looks.
    (found,) = Path(running_services.data_folder, "kafka").glob(f"**/{topic}-{partition}/00000000000000000000.log")
    return found


def batches(log: bytes | bytearray) -> list[tuple[int, int]]:
    """Where the batches are: start and length in bytes."""
    found, at = [], 0
    while at < len(log):
        length = struct.unpack_from(">i", log, at + 8)[0] + 12
        if length == 12:  # preallocated
            break
        found.append((at, length))
        at += length
    return found


def spoil(topic: str, number: int, *, valid_crc: bool = False, codec: int | None = None) -> None:
    """Overwrite the records of a batch, or name a wrong codec; with a valid checksum only decoding shows it."""
    path = segment(topic)
    log = bytearray(path.read_bytes())
    at, length = batches(log)[number]
    if codec is None:
        log[at + HEADER.size : at + length] = b"\xff" * (length - HEADER.size)
    else:
        struct.pack_into(">h", log, at + CRC_FROM, codec)
    if valid_crc:
        struct.pack_into(">I", log, at + 17, calc_crc32c(bytes(log[at + CRC_FROM : at + length])))
    with path.open("r+b") as file:  # in place: the broker has it open
        file.write(log)


async def produce_batch(settings: KafkaSettings, size: int, **options: object) -> None:
    async with AIOKafkaProducer(bootstrap_servers=list(settings.bootstrap_servers), **options) as producer:
        batch = producer.create_batch()
        for number in range(size):
            assert batch.append(key=None, value=b"%d" % number, timestamp=1_700_000_000_000 + number)
        await (await producer.send_batch(batch, settings.topics[0], partition=0))


class Ledger:
    """Takes what was passed over; when it is told to, not before `release`."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int, int]] = []
        self.reasons: list[str] = []
        self.release = asyncio.Event()
        self.release.set()

    async def skipped(self, first: Coordinates, last: int, reason: str) -> None:
        self.ranges.append((first.partition, first.offset, last))
        self.reasons.append(reason)
        await self.release.wait()


def intake_with(settings: KafkaSettings, desk: Desk, ledger: Ledger, max_in_flight: int = 64) -> Intake:
    intake = intake_of(settings, desk, max_in_flight=max_in_flight)
    intake._skipped = ledger.skipped
    return intake


# A wrong checksum; nonsense; nonsense where compressed data should be; a wrong codec, and one that there is not.
SPOILT = [
    (False, None, None),
    (True, None, None),
    (True, None, "gzip"),
    (True, None, "zstd"),
    (True, 2, None),
    (True, 3, "gzip"),
    (True, 7, None),
]


@pytest.mark.parametrize(("valid_crc", "codec", "compression"), SPOILT)
async def test_a_corrupt_batch_is_passed_over_and_all_else_arrives(
    settings_for: MakeSettings, topic: MakeTopic, valid_crc: bool, codec: int | None, compression: str | None
) -> None:
    settings = settings_for(await topic(2))
    for size in (3, 5, 4):
        await produce_batch(settings, size, compression_type=compression)
    await produce(settings, [b"x"] * 200, partition=1)
    spoil(settings.topics[0], 1, valid_crc=valid_crc, codec=codec)
    unreadable = metrics.RECORDS_UNREADABLE.labels(settings.topics[0])
    desk, ledger = Desk(), Ledger()
    ledger.release.clear()
    async with running(intake_with(settings, desk, ledger)):
        await until(lambda: len(desk.finished) >= 207)
        assert ledger.ranges == [(0, 3, 7)]
        assert sorted(at.offset for at in desk.started if at.partition == 0) == [0, 1, 2, 8, 9, 10, 11]
        assert sorted(at.offset for at in desk.started if at.partition == 1) == list(range(200))
        assert unreadable._value.get() == 5
        await asyncio.sleep(0.5)
        assert await committed(settings) == {0: 3, 1: 200}, "what was passed over is not durable yet"
        ledger.release.set()

        async def done() -> bool:
            return await committed(settings) == {0: 12, 1: 200}

        await until(done)
        await produce(settings, [b"y"] * 50, partition=0)
        await until(lambda: len(desk.finished) == 257)


async def test_a_corrupt_batch_at_the_end_and_what_comes_later(settings_for: MakeSettings, topic: MakeTopic) -> None:
    settings = settings_for(await topic())
    for size in (2, 3):
        await produce_batch(settings, size)
    spoil(settings.topics[0], 1)
    desk, ledger = Desk(), Ledger()
    async with running(intake_with(settings, desk, ledger)):
        await until(lambda: bool(ledger.ranges))
        assert ledger.ranges == [(0, 2, 4)]
        assert "CorruptRecordException" in ledger.reasons[0]
        await produce_batch(settings, 2)
        await until(lambda: len(desk.finished) == 4)
    assert await committed(settings) == {0: 7}


async def test_an_error_takes_no_records_of_other_partitions_with_it(
    settings_for: MakeSettings, topic: MakeTopic
) -> None:
    """aiokafka throws away what a poll had taken of the others, and has moved their positions (measured: 0.14)."""
    first = settings_for(await topic(6))
    await produce_batch(first, 2)
    for partition in range(1, 6):
        await produce(first, [b"x"] * 30, partition=partition)
    spoil(first.topics[0], 0)
    for _ in range(4):  # the order in which partitions are polled is random: in one of six tries nothing is thrown away
        settings = settings_for(*first.topics)
        desk, ledger = Desk(), Ledger()
        async with running(intake_with(settings, desk, ledger, max_in_flight=1000)):
            await until(partial(_all_came, desk, ledger))
        assert len(desk.started) == 150
        assert await committed(settings) == {0: 2, **dict.fromkeys(range(1, 6), 30)}


def _all_came(desk: Desk, ledger: Ledger) -> bool:
    return len(desk.finished) >= 150 and bool(ledger.ranges)


@pytest.mark.slow
async def test_corrupt_batches_while_members_come_and_go_and_intake_is_full(
    settings_for: MakeSettings, topic: MakeTopic
) -> None:
    """Rebalances and pauses in the middle of passing over: what is readable is done, all else written down."""
    settings = settings_for(await topic(3))
    for size in (3, 20, 2, 20, 4):
        await produce_batch(settings, size)
    for partition in (1, 2):
        await produce(settings, [b"x"] * 300, partition=partition)
    spoil(settings.topics[0], 1)
    spoil(settings.topics[0], 3)
    readable = [*range(3), 23, 24, *range(45, 49)]
    desk, ledger = Desk(), Ledger()
    async with running(intake_with(settings, desk, ledger, max_in_flight=4)):
        for _ in range(3):
            async with running(intake_with(settings, desk, ledger, max_in_flight=4)):
                await asyncio.sleep(1)

        async def done() -> bool:
            return await committed(settings) == {0: 49, 1: 300, 2: 300}

        await until(done, seconds=60)
    assert sorted({at.offset for at in desk.finished if at.partition == 0}) == readable
    assert len({at.offset for at in desk.finished if at.partition == 1}) == 300
    assert len({at.offset for at in desk.finished if at.partition == 2}) == 300
    written_down = {offset for _, first, last in ledger.ranges for offset in range(first, last + 1)}
    assert written_down == set(range(49)) - set(readable)
