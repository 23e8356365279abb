"""All inputs, through all lanes at once."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import trustme
from rich.progress import Progress

from tests.chaos.world import open_world
from tests.corpus import audio, downloads, messages, own_audio, own_downloads, own_messages
from tests.corpus.case import Place
from tests.corpus.lanes import DAEMONS
from tests.corpus.lanes import Daemon as LaneDaemon
from tests.corpus.runner import Got, LaneResult, LaneRun
from tests.corpus.web import HOST, hostile_web, trap, untrusted_https
from tests.services import minio
from tests.services.state import Services

MODULES = (messages, downloads, audio, own_messages, own_downloads, own_audio)


@dataclass(frozen=True, slots=True)
class Ran:
    """What all lanes found; `reached` are the contacts with the listener that must never be reached."""

    lanes: dict[str, LaneResult]
    reached: list[str]

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong, one sentence each."""
        found = [f"{lane}: {problem}" for lane, result in self.lanes.items() for problem in result.problems]
        found += [f"the trap was reached: {request}" for request in self.reached]
        return found + [f"{got.case.name}: {got.problem}" for got in self.got if got.problem]

    @property
    def got(self) -> list[Got]:
        """What became of each input."""
        return [got for result in self.lanes.values() for got in result.got]


async def run_all(services: Services, folder: Path, progress: Progress, only: str = "", *, quick: bool = False) -> Ran:
    """Run all inputs, or those whose name matches the expression `only`.

    `quick`: none of the slow ones, and all at once, so that the memory of each is not known.
    """
    async with open_place(services, folder) as place:
        cases = [case for module in MODULES for case in module.cases(place) if re.search(only, case.name)]
        cases = [case for case in cases if not (quick and case.slow)]
        repeated = [name for name, count in Counter(case.name for case in cases).items() if count > 1]
        assert not repeated, f"two inputs have one name: {repeated}"
        await _upload(services, place)
        lanes = {each.lane: [case for case in cases if case.lane == each.lane] for each in DAEMONS}
        crashes = [each for each in DAEMONS if each.failpoints and lanes[each.lane]]
        others = [each for each in DAEMONS if not each.failpoints and lanes[each.lane]]
        results: dict[str, LaneResult] = {}

        async def run_lane(daemon: LaneDaemon) -> None:
            mine = lanes[daemon.lane]
            task = progress.add_task(daemon.lane, total=sum(case.outcomes for case in mine))
            on_done = partial(progress.advance, task)
            async with open_world(services, folder / daemon.lane, lambda _: None, partitions=1) as world:
                results[daemon.lane] = await LaneRun(
                    world, place, replace(daemon, one_by_one=daemon.one_by_one and not quick), mine, on_done
                ).run()

        async def run_crashes() -> None:  # one after the other: they mostly wait
            for daemon in crashes:
                await run_lane(daemon)

        async with asyncio.TaskGroup() as group:
            group.create_task(run_crashes())
            for daemon in others:
                group.create_task(run_lane(daemon))
        return Ran(results, place.trap.reached)


@asynccontextmanager
async def open_place(services: Services, folder: Path) -> AsyncIterator[Place]:
    """Open the servers that the inputs lead to, and make the bucket."""
    files = folder / "files"
    files.mkdir(parents=True)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        web = await enter(hostile_web(services.s3_endpoint))
        https = await enter(untrusted_https(_certificate(folder)))
        bucket = await enter(minio.bucket(services, "corpus"))
        yield Place(web, await enter(trap()), bucket, files, https)


def _certificate(folder: Path) -> Path:
    """Return a PEM with a certificate for the web server's address by an authority that nobody knows."""
    path = folder / "server.pem"
    trustme.CA().issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


async def _upload(services: Services, place: Place) -> None:
    async with minio.client(services.s3_endpoint, services.s3_access_key, services.s3_secret_key) as s3:
        for key, body in place.objects.items():
            await s3.put_object(Bucket=place.bucket, Key=key, Body=body)
