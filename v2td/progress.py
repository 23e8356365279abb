"""What is known of unfinished jobs beyond this process: the windows that were heard, and the processes that died.

A job's `Journal` gathers what is heard in its windows; the `Journals` save those of long jobs from time to time, and
when partitions are about to go. Whoever is given the job next, here or elsewhere, reads them and goes on from there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

from v2td import failpoints, metrics, store
from v2td.engine import WindowRequest, WindowResult, saved
from v2td.errors import ErrorClass, JobError, ServiceError
from v2td.jobs import Job
from v2td.logs import get_logger

log = get_logger(__name__)

DEATHS_FORGIVEN = 1  # over all lives of the daemon; within one, decoders and engine count for themselves
NEVER_SECONDS = 3600.0
ROWS_AT_ONCE = 500

Key = tuple[int, str]  # a window's index, and the digest of all that decides its text


class Journal:
    """One job's windows over all its attempts; `known` and `deaths` (of processes) are from earlier lives."""

    def __init__(self, job: Job, model: str, known: dict[Key, WindowResult], deaths: int) -> None:
        self.job = job
        self.began = time.monotonic()
        self._model = model
        self._known = known
        self._fresh: list[tuple[WindowRequest, str, WindowResult]] = []  # without their digests, which take time
        self._unsaved: list[Key] = []
        self._looks_up = bool(known)
        self._deaths_before = deaths
        self.deaths = 0  # in this life

    def check(self) -> None:
        """Raise JobError poison when the job has killed processes in an earlier life, and too often in all."""
        deaths = self._deaths_before + self.deaths
        if self._deaths_before and deaths > DEATHS_FORGIVEN:
            raise JobError(ErrorClass.POISON, f"{deaths} processes died of it, over a restart of the daemon")

    def again(self) -> None:
        """Begin another attempt, which knows what the ones before have heard."""
        self._looks_up = True

    def known(self, request: WindowRequest, audio_sha256: str) -> WindowResult | None:
        """Return what was heard in the window, if anything was."""
        if not self._looks_up:
            return None
        self._digest()
        result = self._known.get((request.window.index, saved.request_sha256(request, audio_sha256, self._model)))
        metrics.WINDOWS_RESUMED.inc(result is not None)
        return result

    def heard(self, request: WindowRequest, audio_sha256: str, result: WindowResult) -> None:
        """Keep what was heard."""
        self._fresh.append((request, audio_sha256, result))

    def died(self, kind: str) -> None:
        """Count a process that died of this job alone; JobError poison when that was too often."""
        metrics.CHILD_DEATHS.labels(kind).inc()
        self.deaths += 1
        self.check()

    def rows(self) -> list[store.WindowRow]:
        """Return what is not saved."""
        self._digest()
        at = self.job.coordinates
        return [store.WindowRow(at, *key, saved.to_json(self._known[key])) for key in self._unsaved]

    def note_saved(self, rows: int) -> None:
        """Note that so many of `rows` are saved."""
        del self._unsaved[:rows]

    def _digest(self) -> None:
        for request, audio_sha256, result in self._fresh:
            key = (request.window.index, saved.request_sha256(request, audio_sha256, self._model))
            self._known[key] = result
            self._unsaved.append(key)
        self._fresh.clear()


class Journals:
    """The journals of all jobs under way; `run` saves those of jobs that take longer than `seconds` (0: none)."""

    def __init__(self, database: store.Database, model: str, seconds: float) -> None:
        self._database = database
        self._model = model
        self._seconds = seconds
        self._open: dict[UUID, Journal] = {}
        self._unfinished = store.Unfinished(frozenset(), {})
        self._looked = 0.0  # time.monotonic() when the last look began
        self._looking = asyncio.Lock()
        self._noted: dict[UUID, int] = {}  # deaths that are durable, of jobs under way
        self._died = asyncio.Event()
        self._saving = asyncio.Lock()

    async def look_back(
        self, cluster_id: str, topic: str, partition: int, first_offset: int
    ) -> dict[int, frozenset[UUID]]:
        """Return what `store.durable_jobs` does, and take note of what jobs were left in the middle.

        To be called when a partition is assigned. Raises ServiceError.
        """
        await self._look()
        return await store.durable_jobs(self._database, cluster_id, topic, partition, first_offset)

    async def _look(self) -> None:
        """See that what is known of unfinished jobs is not older than this call; ServiceError."""
        asked = time.monotonic()
        async with self._looking:  # all partitions of an assignment ask at once, and share an answer
            if self._looked < asked:
                self._looked = time.monotonic()
                self._unfinished = await store.unfinished(self._database)

    @asynccontextmanager
    async def journal(self, job: Job) -> AsyncIterator[Journal]:
        """Open the job's journal, which is saved as long as it is open."""
        known: dict[Key, WindowResult] = {}
        if job.replay is not None:  # it had its outcome, or was here before, since partitions were assigned
            with suppress(ServiceError):
                await self._look()
        if job.id in self._unfinished.windows:
            known = await self._read(job.id)
        journal = Journal(job, self._model, known, self._unfinished.deaths.get(job.id, 0))
        self._open[job.id] = journal
        try:
            yield journal
        finally:
            if self._open.get(job.id) is journal:
                del self._open[job.id]
            self._noted.pop(job.id, None)

    def of(self, job_id: UUID) -> Journal | None:
        """Return the journal that is open for a job."""
        return self._open.get(job_id)

    async def _read(self, job_id: UUID) -> dict[Key, WindowResult]:
        """Return what was heard before; nothing when that cannot be read, which costs work and nothing else."""
        try:
            rows = await store.load_windows(self._database, job_id)
        except ServiceError as error:
            log.warning("finished windows not read", error=str(error))
            return {}
        found = {(window, sha256): saved.from_json(result) for window, sha256, result in rows}
        log.info("going on where it was left", windows=len(found))
        return {key: result for key, result in found.items() if result is not None}

    async def run(self) -> None:
        """Save for ever: deaths at once, windows every so often."""
        due = time.monotonic() + (self._seconds or NEVER_SECONDS)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - time.monotonic())):
                    await self._died.wait()
            self._died.clear()
            await self._note_deaths()
            if time.monotonic() >= due:
                due = time.monotonic() + (self._seconds or NEVER_SECONDS)
                if self._seconds:
                    await self.save(older_than_seconds=self._seconds)

    def note_death(self) -> None:
        """Have `run` make the deaths durable that the journals know of."""
        self._died.set()

    async def save(self, older_than_seconds: float = 0.0) -> None:
        """Save the finished windows of jobs under way; what cannot be saved now is tried again next time."""
        async with self._saving:
            now = time.monotonic()
            for journal in list(self._open.values()):
                if now - journal.began < older_than_seconds:
                    continue
                try:
                    await self._save(journal)
                except ServiceError as error:
                    log.warning("finished windows not saved", error=str(error))
                    return

    async def _save(self, journal: Journal) -> None:
        while rows := journal.rows()[:ROWS_AT_ONCE]:
            await store.save_windows(self._database, rows)
            journal.note_saved(len(rows))
            await failpoints.reach("progress.written")

    async def _note_deaths(self) -> None:
        for job_id, journal in list(self._open.items()):
            while self._noted.get(job_id, 0) < journal.deaths:
                try:
                    await store.note_death(self._database, journal.job.coordinates)
                except ServiceError as error:
                    log.warning("a death is not noted yet", error=str(error))
                    await asyncio.sleep(1)
                    self._died.set()
                    return
                self._noted[job_id] = self._noted.get(job_id, 0) + 1
