"""The machine under the daemon: its clock jumps, its disks fill up or become read-only, its model is replaced."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.chaos import clock
from tests.chaos.daemons import Daemon, DaemonError
from tests.chaos.disk import Disk, small_disk
from tests.chaos.fault import Fault, Result, Size, within
from tests.chaos.web import WINDOW_BYTES
from tests.chaos.world import World
from tests.services import minio
from v2td import bundled

RECORDING = "/audio/en-01.flac"
TOO_LONG = "/audio/en-long.ogg"  # for PCM_KILOBYTES
PCM_KILOBYTES = 2560
SPOOL_KILOBYTES = 4096
TOO_LARGE = f"/echo/{5_000_000 // WINDOW_BYTES}"  # for SPOOL_KILOBYTES
TROUBLE_SECONDS = 2.0
SESSION_SECONDS = 3.5  # a bit more than the worlds' kafka.session_timeout_seconds
ROOM_SECONDS = 7.0  # a job that waits for room looks again within five
PROGRESS_SECONDS = 5.0
DONE_SECONDS = 60.0
HOUR = 3600.0
REAL: dict[str, Any] = {"engine__slots": 1, "engine__threads": 1, "speech__decoders": 1}


async def clock_jumps(world: World, size: Size) -> Result:
    """The wall clock jumps: nobody is thrown out of the group, and only what goes by the clock takes notice."""
    wall = await clock.build(world.folder)
    daemon = await world.daemons.start(environment=wall.environment)
    recoveries: list[float] = []
    problems: list[str] = []
    expected: dict[str, str | None] = {}  # the class of failure, by job
    async with world.producer.stream(30):
        await world.until_progress(0, PROGRESS_SECONDS)
        joined = (await daemon.metrics())["v2td_kafka_rebalances_total"]
        for seconds in size.pick((HOUR, -2 * HOUR, 0.0), (HOUR, -2 * HOUR, 400 * 24 * HOUR, 0.0) * 10):
            done, began = await world.done(), time.monotonic()
            wall.jump(seconds)
            recoveries.append(await world.until_progress(done, 4 * PROGRESS_SECONDS, since=began))
            expected |= await _jobs_by_the_clock(world, seconds)
            await asyncio.sleep(SESSION_SECONDS)
            if not daemon.running:
                raise DaemonError(daemon.tail())
        if (await daemon.metrics())["v2td_kafka_rebalances_total"] != joined:
            problems.append("the daemon was thrown out of the group")
    await world.until_all_done(DONE_SECONDS)
    found = {row["job_id"]: row["error_class"] for row in await world.rows("SELECT job_id, error_class FROM failures")}
    problems += [
        f"{job}: {found.get(job)} instead of {expected.get(job)}"
        for job in expected.keys() | found.keys()
        if found.get(job) != expected.get(job)
    ]
    problems += within(recoveries, PROGRESS_SECONDS, "a jump of the clock")
    return await world.result(len(recoveries), recoveries, problems)


async def _jobs_by_the_clock(world: World, seconds: float) -> dict[str, str | None]:
    """Send jobs that go by the daemon's clock, which is wrong by so much; returns what is to become of each."""
    soon, before = (datetime.now(UTC) + timedelta(minutes=minutes) for minutes in (10, -10))
    async with minio.client(
        world.services.s3_endpoint, world.services.s3_access_key, world.services.s3_secret_key
    ) as s3:
        await s3.put_object(Bucket=world.bucket, Key="one-window", Body=bytes(WINDOW_BYTES))
    sent = {
        "soon": await world.producer.send(expires_at=soon.isoformat()),
        "before": await world.producer.send(expires_at=before.isoformat()),
        "signed": await world.producer.send(audio_url=f"s3://{world.bucket}/one-window"),
    }
    fates = {
        "soon": "expired" if seconds > 600 else None,
        "before": "expired" if seconds > -600 else None,
        "signed": "access_denied" if seconds else None,  # an hour off is more than any S3 server allows
    }
    return {str(each.job_id): fates[kind] for kind, (each,) in sent.items()}


async def downloads_in_trouble(world: World, size: Size) -> Result:
    """The disk of the downloads is full, then read-only: jobs wait, and no file is left behind."""
    async with small_disk(world.folder / "small", SPOOL_KILOBYTES) as disk:
        await world.daemons.start(fetch__spool_dir=str(disk.folder))
        await world.producer.send(1, TOO_LARGE)
        return await _in_trouble(world, size, disk, (30, "/echo/1"), "too_large")


async def tmpfs_in_trouble(world: World, size: Size) -> Result:
    """The tmpfs of the decoded PCM is full, then read-only: jobs wait, and no file is left behind."""
    async with small_disk(world.folder / "small", PCM_KILOBYTES) as disk:
        await world.daemons.start("real", speech__pcm_dir=str(disk.folder), **REAL)
        await world.producer.send(1, TOO_LONG)
        return await _in_trouble(world, size, disk, (3, RECORDING), "too_long")


async def _in_trouble(world: World, size: Size, disk: Disk, load: tuple[float, str], never: str) -> Result:
    """Have a disk in trouble under load; of the jobs sent so far, one can `never` be done and fails as that."""
    (daemon,) = world.daemons.all
    recoveries: list[float] = []
    problems: list[str] = []
    async with world.producer.stream(*load):
        await world.until_progress(0, DONE_SECONDS)
        for trouble in (disk.full, disk.read_only) * size.pick(1, 10):
            waiting = len(daemon.events("waiting for room"))
            async with trouble():
                await asyncio.sleep(TROUBLE_SECONDS)
                done = await world.done()
            if not daemon.running:
                raise DaemonError(f"{trouble.__name__}: the daemon ended:\n{daemon.tail()}")
            recoveries.append(await world.until_progress(done, DONE_SECONDS))
            if len(daemon.events("waiting for room")) == waiting:
                problems.append(f"no job had to wait: {trouble.__name__}")
    await world.until_all_done(DONE_SECONDS)
    await world.producer.send(1, load[1])  # with it goes what could not be deleted
    await world.until_all_done(DONE_SECONDS)
    problems += [f"{path.name} was left behind" for path in disk.files()]
    failed = [row["error_class"] for row in await world.rows("SELECT error_class FROM failures")]
    if failed != [never]:
        problems.append(f"failures: {failed} instead of one {never}")
    problems += within(recoveries, ROOM_SECONDS, "room again")
    return await world.result(len(recoveries), recoveries, problems)


async def model_replaced(world: World, size: Size) -> Result:
    """The model's file is replaced while slots work: by a good one, then by a broken one, which ends the daemon."""
    model = world.folder / "model"
    shutil.copytree(bundled.model_folder(), model)
    settings = REAL | {"engine__model": str(model)}
    recoveries: list[float] = []
    problems: list[str] = []
    for _ in range(size.pick(1, 5)):
        daemon = await world.daemons.start("real", **settings)
        _put(model, (model / "model.bin").read_bytes())
        done, began = await world.done(), time.monotonic()
        await _kill_slot(world, daemon)
        recoveries.append(await world.until_progress(done, DONE_SECONDS, since=began))
        await world.until_all_done(DONE_SECONDS)
        whole = (model / "model.bin").read_bytes()
        _put(model, whole[: len(whole) // 2])
        await _kill_slot(world, daemon)
        problems += await _ends_saying(world, daemon)
        problems += await _ends_saying(world, await world.daemons.start("real", wait=False, **settings))
        _put(model, whole)
    async with world.daemons.running("real", **settings):
        await world.until_all_done(DONE_SECONDS)
        failed = await world.rows("SELECT error_class, reason FROM failures")
        problems += [f"a job failed: {row['error_class']}: {row['reason']}" for row in failed]
    problems += within(recoveries, 3 * PROGRESS_SECONDS, "a replaced model")
    return await world.result(2 * size.pick(1, 5), recoveries, problems)


def _put(model: Path, content: bytes) -> None:
    """Replace the model's file at once, as whoever cares would do."""
    fresh = model / "model.bin.new"
    fresh.write_bytes(content)
    fresh.rename(model / "model.bin")


async def _kill_slot(world: World, daemon: Daemon) -> None:
    """Kill the slot, which then loads the model again, and send it work."""
    ((slot),) = (await daemon.status())["slots"]
    os.kill(slot["pid"], signal.SIGKILL)
    await world.producer.send(3, RECORDING)


async def _ends_saying(world: World, daemon: Daemon) -> list[str]:
    """Wait for the end of a daemon whose model does not load; a problem unless it says so."""
    code = await world.daemons.bury(daemon, DONE_SECONDS)
    said = daemon.tail()
    if code != 1 or "start slot" not in said:
        return [f"a broken model: exit status {code}, and the log ends with:\n{said}"]
    return []


FAULTS = (
    Fault("clock-jumps", clock_jumps, "the wall clock jumps forwards and back", (16, 250)),
    Fault("downloads-full", downloads_in_trouble, "the disk of downloads is full, then read-only", (12, 150)),
    Fault("tmpfs-full", tmpfs_in_trouble, "the tmpfs of PCM is full, then read-only", (18, 250)),
    Fault("model-replaced", model_replaced, "the model's file is replaced: a good one, a broken one", (28, 150)),
)
