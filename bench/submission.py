"""How long POST /v1/jobs takes at 200 a second, from the moment it is due until the answer has been read.

A whole daemon answers, and does the jobs meanwhile: its recordings and its engine are stand-ins that cost nothing. Each
request has an idempotency key of its own, so that each is a durable row and an acknowledged record. It is an open loop,
as in `bench.submit`. At the end every job has its row, and is the one that its answer named.
"""

from __future__ import annotations

import asyncio
import time
from uuid import UUID, uuid4

import aiohttp
import numpy as np

from bench.context import Context, Distribution, Findings, Table
from bench.deployment import Config, Deployment, MeasureError, deploy

KEY = "submission_p99_ms"
GOAL = 10
PER_SECOND = 200
PARTITIONS = 8
WARM_UP = 200
TOKEN = "the token of a bench"  # noqa: S105 (of a daemon that lives for this measure)
NULL = ("--constant", "fetch", "decode", "--engine-factor", "0")
DONE_SECONDS = 120.0


async def measure(context: Context) -> Findings:
    """Answer with `submission_p99_ms`."""
    count = int(context.by_size(4, 15, 120)) * PER_SECOND
    changes: Config = {"admin": {"token": TOKEN}, "api": {"jobs": True}}
    async with deploy(context, PARTITIONS) as deployment, deployment.daemon(NULL, changes) as daemon:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with aiohttp.ClientSession(f"http://127.0.0.1:{daemon.port}", headers=headers) as session:
            await _open_loop(session, WARM_UP)
            before = daemon.cpu_seconds()
            answers = await _open_loop(session, count)
            cpu_seconds = daemon.cpu_seconds() - before
        await deployment.until_transcribed(count + WARM_UP, DONE_SECONDS)
        await _check(deployment, {job for _, job in answers})
    milliseconds = np.array([seconds for seconds, _ in answers]) * 1000
    p50, p99, p999 = np.percentile(milliseconds, (50, 99, 99.9))
    table = Table(
        "POST /v1/jobs",
        ("requests", "per second", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "daemon's CPU ms each"),
        (
            (
                *(count, PER_SECOND),
                *(round(float(each), 2) for each in (p50, p99, p999, milliseconds.max(), cpu_seconds / count * 1000)),
            ),
        ),
        f"A durable row and acks=all on one broker for each, and the job done meanwhile; goal p99 < {GOAL} ms.",
    )
    plot = Distribution("submission", "POST /v1/jobs at 200/s", "ms", (("submission", tuple(milliseconds.tolist())),))
    return Findings({KEY: float(p99)}, (table,), (plot,))


async def _open_loop(session: aiohttp.ClientSession, count: int) -> list[tuple[float, UUID]]:
    """Return seconds and job of each request."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        tasks = []
        for number in range(count):
            due = began + number / PER_SECOND
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.append(group.create_task(_submit(session, due)))
    return [task.result() for task in tasks]


async def _submit(session: aiohttp.ClientSession, due: float) -> tuple[float, UUID]:
    body = {"audio_url": "http://127.0.0.1/a.wav", "language": "en"}
    async with session.post("/v1/jobs", json=body, headers={"Idempotency-Key": str(uuid4())}) as answer:
        content = await answer.json()
        if answer.status != 202:
            raise MeasureError(f"{answer.status}: {content}")
    return time.monotonic() - due, UUID(content["id"])


async def _check(deployment: Deployment, jobs: set[UUID]) -> None:
    """MeasureError unless each answer named a job of its own that was done."""
    ((done,),) = await deployment.fetch("SELECT count(*) FROM transcriptions WHERE id = ANY($1::uuid[])", list(jobs))
    ((noted,),) = await deployment.fetch("SELECT count(*) FROM submissions WHERE id = ANY($1::uuid[])", list(jobs))
    if not len(jobs) == done == noted:
        raise MeasureError(f"{len(jobs)} jobs were answered, {done} done and {noted} noted")
