"""What people ask of jobs and of the intake, done here: each instance reads what was given to all of them.

Commands come by NOTIFY, and by reading their table at the start, after each reconnection and every so often: a
notification that nobody heard loses none.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC
from random import Random
from typing import Self
from uuid import UUID

from v2td import metrics, store
from v2td.config import Settings
from v2td.errors import ServiceError
from v2td.jobs import Job
from v2td.limit import CURRENT, Priority
from v2td.logs import get_logger
from v2td.retry import Backoff
from v2td.store.commands import CHANNEL, Given

log = get_logger(__name__)

READ_SECONDS = 30.0  # between readings of the table, where notifications get lost
BACKOFF = Backoff(initial=0.5, maximum=20)


class Following(Priority):
    """A job under way, as commands reach it while the block runs: its priority may change, and it may be cancelled.

    Cancelling it cancels its task, once. Who catches that asks `cancelled`, which is also to be asked when the job has
    its outcome without it: from then on commands have no effect.
    """

    __slots__ = ("_before", "_commands", "_reason", "_settled", "_task", "job", "ranked_by")

    def __init__(self, job: Job, commands: Commands) -> None:
        self.value = job.priority
        self._told = []
        self.job = job
        self.ranked_by = 0  # the id of the command that set the priority
        self._commands = commands
        self._reason: str | None = None
        self._settled = False

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._commands.under_way[self.job.id] = self
        self._before = CURRENT.set(self)
        return self

    def __exit__(self, *details: object) -> None:
        CURRENT.reset(self._before)
        self._commands.forget(self)

    def cancel(self, reason: str) -> bool:
        """Cancel the job; whether that has an effect, which it has once, and not when the job has its outcome."""
        if self._settled or self._reason is not None:
            return False
        assert self._task is not None
        self._reason = reason
        self._task.cancel()
        return True

    def cancelled(self) -> str | None:
        """Return why the job is to end as cancelled; None: it is not, or its task is cancelled for another reason too.

        In either case no command has an effect any more.
        """
        if self._settled or self._reason is None:
            self._settled = True
            return None
        self._settled = True
        assert self._task is not None
        return self._reason if self._task.uncancel() == 0 else None


class Commands:
    """Keeps the open commands, and carries them out on the jobs of this process; `run` hears of new ones."""

    def __init__(self, database: store.Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings.database
        self._group = settings.kafka.group_id
        self._instance = store.instance_name(settings.kafka)
        self.under_way: dict[UUID, Following] = {}
        self._cancels: dict[UUID, Given] = {}  # open ones, of whichever instance's jobs
        self._priorities: dict[UUID, Given] = {}
        self._word: Given | None = None  # the last pause or resume
        self._told: set[int] = set()  # ids of commands that were notified and not read yet
        self._news = asyncio.Event()
        self._random = Random()  # noqa: S311 (jitter)

    @property
    def paused(self) -> str | None:
        """Why the intake is to pause; None when it is not."""
        if self._word is None or self._word.command.kind != "pause":
            return None
        return f"paused by {self._word.actor} since {self._word.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"

    def following(self, job: Job) -> Following:
        """Let commands reach a job, whose task this is, while the block runs."""
        return Following(job, self)

    def forget(self, following: Following) -> None:
        """Let no command reach a job any more."""
        job = following.job.id
        if self.under_way.get(job) is following:
            del self.under_way[job]
        if self._cancels or self._priorities:
            self._cancels.pop(job, None)  # what is still open comes with the next reading
            self._priorities.pop(job, None)

    async def catch_up(self, following: Following) -> None:
        """Carry out what was asked of a job before it began, if it still counts: of most nothing was."""
        job = following.job.id
        if job not in self._cancels and job not in self._priorities:
            return
        tries = 0
        while True:  # a guess would cancel a replay that was asked for after the command
            try:
                given = await store.commands.open_of(self._database, job)
                break
            except ServiceError as error:
                tries += 1
                log.warning("commands not looked up yet", error=str(error), tries=tries)
                await asyncio.sleep(BACKOFF.pause(tries, self._random))
        for each in given:
            self._do(each, following)
        await asyncio.sleep(0)  # a cancellation comes with the next await

    async def read(self) -> None:
        """Read all open commands, and do what they ask; raises ServiceError."""
        cancels: dict[UUID, Given] = {}
        priorities: dict[UUID, Given] = {}
        # First, so that who cancels jobs and then resumes the intake finds them cancelled before they begin.
        word = await store.commands.last_word(self._database, self._group, self._instance)
        async for page in store.commands.open_commands(self._database):
            for each in page:
                assert each.command.job is not None
                (cancels if each.command.kind == "cancel" else priorities)[each.command.job] = each
        self._cancels, self._priorities = cancels, priorities
        for job, following in list(self.under_way.items()):
            for found in (priorities.get(job), cancels.get(job)):
                if found is not None:
                    self._do(found, following)
        if word is not None:
            self._obey(word)

    async def run(self) -> None:
        """Hear of commands and carry them out, for ever; while Postgres is away, what is known counts."""
        tries = 0
        while True:
            try:
                async with store.listening(self._settings, CHANNEL, self._notified, self._news.set) as line:
                    await self.read()  # what was given while nobody listened
                    tries = 0
                    await self._listen(line)
            except ServiceError as error:
                log.warning("commands are not heard", error=str(error), tries=tries)
            tries += 1
            await asyncio.sleep(BACKOFF.pause(tries, self._random))

    async def _listen(self, line: store.Line) -> None:
        """Do what is notified until the connection is lost; raises ServiceError."""
        due = time.monotonic() + READ_SECONDS
        while not line.lost.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - time.monotonic())):
                    await self._news.wait()
            self._news.clear()
            if told := list(self._told):
                self._told.clear()
                for each in await store.commands.these(self._database, told):
                    self._take(each)
            if time.monotonic() >= due:
                await line.check()
                await self.read()
                due = time.monotonic() + READ_SECONDS

    def _notified(self, payload: str) -> None:
        if payload.isdecimal() and len(payload) < 19:  # whoever may connect may notify anything
            self._told.add(int(payload))
            self._news.set()

    def _take(self, given: Given) -> None:
        """Keep a new command, and carry it out."""
        job = given.command.job
        if job is None:
            if given.command.group_id == self._group and given.command.instance in (None, self._instance):
                self._obey(given)
            return
        (self._cancels if given.command.kind == "cancel" else self._priorities)[job] = given
        if (following := self.under_way.get(job)) is not None:
            self._do(given, following)

    def _do(self, given: Given, following: Following) -> None:
        command, at = given.command, following.job.coordinates
        if command.kind == "cancel":
            if not following.cancel(f"cancelled by {given.actor}"):
                return
        elif given.id > following.ranked_by and command.priority is not None:
            following.ranked_by = given.id
            following.change(command.priority)
        else:
            return
        metrics.COMMANDS.labels(command.kind).inc()
        log.info(
            "command",
            command=command.kind,
            actor=given.actor,
            job=str(at.row_id()),
            job_id=following.job.job_id,
            **({} if command.priority is None else {"priority": command.priority}),
        )

    def _obey(self, word: Given) -> None:
        """Pause or resume the intake, if that is news."""
        if self._word is not None and word.id <= self._word.id:
            return
        was_paused, self._word = self.paused is not None, word
        metrics.INTAKE_STOPPED.set(self.paused is not None)
        if was_paused or self.paused:
            metrics.COMMANDS.labels(word.command.kind).inc()
            log.info("command", command=word.command.kind, actor=word.actor, instance=word.command.instance)
