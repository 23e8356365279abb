"""All three services together: up, down, and whether they answer."""

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.services import kafka, minio, postgres, state
from tests.services.build import Builds
from tests.services.errors import ServiceError
from tests.services.processes import Process, alive, stop, this_process
from tests.services.state import Services, State

_ANSWER_SECONDS = 10.0
_RUNS_WITH_LOGS = 10

T = TypeVar("T")


async def up(builds: Builds, file: Path, *, owned: bool) -> Services:
    """Starts the three services and returns when each of them has answered; the state goes to ``file``.

    With ``owned`` the set belongs to this process, and is swept once that is gone.  On any failure, and when
    cancelled, what was started is stopped again.  Raises ServiceError.
    """
    folder = _fresh_folder()
    running = State(owner=this_process() if owned else None, data_folder=str(folder))
    starting = _Starting(builds, file, running, folder, state.FOLDER / "logs" / file.stem)
    state.write(file, running)
    try:
        async with asyncio.TaskGroup() as group:
            database = group.create_task(starting.postgres())
            others = group.create_task(starting.kafka_then_minio())
    except BaseException as error:
        down(file)
        if isinstance(error, BaseExceptionGroup) and (known := error.subgroup(ServiceError)):
            raise ServiceError("\n".join(str(single) for single in known.exceptions)) from error
        raise
    node, store = others.result()
    running.services = Services(
        kafka_bootstrap=node.bootstrap,
        postgres_dsn=database.result().dsn,
        s3_endpoint=store.endpoint,
        s3_access_key=store.access_key,
        s3_secret_key=store.secret_key,
        s3_region=minio.REGION,
        notification_topic=minio.NOTIFICATION_TOPIC,
        notification_arn=minio.NOTIFICATION_ARN,
    )
    state.write(file, running)
    return running.services


def down(file: Path) -> list[str]:
    """Stops the processes named in ``file`` that are still the ones we started, and removes their data and the file.

    The logs stay.  Returns the names of what was stopped; blocks until it is gone.
    """
    found = state.read(file)
    if found is None:
        return []
    if not found.processes:
        stopped = []
    else:
        with ThreadPoolExecutor(len(found.processes)) as pool:
            ended = list(pool.map(stop, found.processes))
        stopped = [process.name for process, was_ours in zip(found.processes, ended, strict=True) if was_ours]
    shutil.rmtree(found.data_folder, ignore_errors=True)
    file.unlink(missing_ok=True)
    return stopped


def sweep() -> None:
    """Takes down the sets of ``run`` commands that were killed before they could do so themselves.

    Of the logs of ended ``run`` commands the newest few stay.
    """
    for file in state.FOLDER.glob("run-*.json"):
        found = state.read(file)
        if found and found.owner and not alive(found.owner):
            down(file)
    logs = sorted((state.FOLDER / "logs").glob("run-*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in logs[_RUNS_WITH_LOGS:]:
        if not (state.FOLDER / f"{folder.name}.json").exists():
            shutil.rmtree(folder, ignore_errors=True)


async def unanswered(services: Services) -> dict[str, str]:
    """Asks each service once; returns the error of each that does not answer, by its name."""
    probes = {
        "kafka": kafka.answers(services.kafka_bootstrap),
        "postgres": postgres.answers(services.postgres_dsn),
        "minio": minio.answers(services.s3_endpoint, services.s3_access_key, services.s3_secret_key),
    }
    results = await asyncio.gather(
        *(asyncio.wait_for(probe, _ANSWER_SECONDS) for probe in probes.values()), return_exceptions=True
    )
    return {
        name: repr(result) for name, result in zip(probes, results, strict=True) if isinstance(result, BaseException)
    }


@dataclass(frozen=True, slots=True)
class _Starting:
    """What the starts of one set share."""

    builds: Builds
    file: Path
    running: State
    folder: Path
    logs: Path

    async def postgres(self) -> postgres.Server:
        log, folder = self._places("postgres")
        server = await _whole(lambda: postgres.prepare(folder, password=secrets.token_hex(16), log=log))
        await postgres.ready(server, self._started(postgres.launch(server, log=log)), log=log)
        return server

    async def kafka_then_minio(self) -> tuple[kafka.Node, minio.Server]:
        """In this order: MinIO leaves out a notification target that it cannot reach when it starts."""
        log, folder = self._places("kafka")
        node = await _whole(lambda: kafka.prepare(self.builds.kafka, folder, log=log))
        await kafka.ready(node, self._started(kafka.launch(node, log=log)), log=log)
        await kafka.create_topic(node.bootstrap, minio.NOTIFICATION_TOPIC)
        log, folder = self._places("minio")
        store = minio.prepare(
            self.builds.minio, folder, secret_key=secrets.token_hex(16), kafka_bootstrap=node.bootstrap
        )
        await minio.ready(store, self._started(minio.launch(store, log=log)), log=log)
        return node, store

    def _places(self, name: str) -> tuple[Path, Path]:
        """The service's log, begun anew, and its folder."""
        log = self.logs / f"{name}.log"
        log.unlink(missing_ok=True)
        folder = self.folder / name
        folder.mkdir(mode=0o711)
        return log, folder

    def _started(self, process: Process) -> Process:
        """Writes ``process`` down at once, so that ``down`` finds it even if we are killed while it starts."""
        self.running.processes.append(process)
        state.write(self.file, self.running)
        return process


def _fresh_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="v2td-services-"))
    # The database's user, when that is not us, must be able to pass through to its own folder.
    folder.chmod(0o711)
    return folder


async def _whole(work: Callable[[], T]) -> T:
    """Runs ``work`` in a thread, to its end even when cancelled: nobody may clear its folder under it."""
    thread = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait({thread})
        raise
