"""What is to be done about jobs and the intake: commands that reach every instance, and replays; all are audited."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Literal
from uuid import UUID

from v2td.admin.jobs_desk import DeskError, Trouble
from v2td.admin.jobs_shapes import ENDS, Given
from v2td.config import Settings
from v2td.dead_letters import Result, open_replayer
from v2td.desk.states import States
from v2td.store import Database, StoredFailure, audit, commands
from v2td.store.commands import Command

ACTOR = "api"
REPLAY_SECONDS = 30.0  # a large record is looked for in the whole dead-letter topic


class Changes:
    """Passes on what callers ask for; every method raises DeskError, ServiceError."""

    def __init__(self, settings: Settings, database: Database, states: States) -> None:
        self._settings = settings
        self._database = database
        self._states = states

    async def cancel(self, job: str) -> Given:
        """Ask that a job ends."""
        row_id = await self._living(job)
        number = await commands.give(self._database, Command("cancel", row_id), ACTOR)
        return Given(command=number, told="it ends as `cancelled`, unless it ends by itself before")

    async def prioritise(self, job: str, priority: int) -> Given:
        """Ask that a job becomes more, or less, urgent."""
        row_id = await self._living(job)
        number = await commands.give(self._database, Command("priority", row_id, priority), ACTOR)
        return Given(command=number, told=f"what of it waits has priority {priority}")

    async def intake(self, what: Literal["pause", "resume"], instance: str | None) -> Given:
        """Ask that jobs are taken up no more, or again; None: by the whole group."""
        known = [] if instance is None else await commands.instances(self._database)
        if instance is not None and instance not in known:
            there = ", ".join(known) or "none"
            raise DeskError(Trouble.INVALID, f"instance: none that was seen within a day (there are: {there})")
        command = Command(what, group_id=self._settings.kafka.group_id, instance=instance)
        number = await commands.give(self._database, command, ACTOR)
        who = instance or f"the group {self._settings.kafka.group_id}"
        told = "takes up no more jobs; those under way go on" if what == "pause" else "takes up jobs again"
        return Given(command=number, told=f"{who} {told}")

    async def replay(self, job: str) -> Given:
        """Have a failed job done again."""
        outcome = await self._states.ended(job)
        if not isinstance(outcome, StoredFailure):
            raise DeskError(Trouble.CONFLICT, "it did not fail: `v2td redo` transcribes it again")
        try:
            async with asyncio.timeout(REPLAY_SECONDS):
                result, told = await self._replayed(outcome.id)
        except TimeoutError:
            await audit.note(self._database, ACTOR, "replay", str(outcome.id), {}, error="took too long")
            cure = "its record was not found in time: `v2td dlq replay` takes as long as it takes"
            raise DeskError(Trouble.UNAVAILABLE, cure, 60) from None
        sent = result is Result.SENT
        details = {"record": told} if sent else {}
        await audit.note(self._database, ACTOR, "replay", str(outcome.id), details, error=None if sent else told)
        if not sent:
            raise DeskError(Trouble.CONFLICT, f"not done again: {told}")
        return Given(command=None, told=f"its record was sent again, to {told}")

    async def _replayed(self, row_id: UUID) -> tuple[Result, str]:
        async with (
            open_replayer(self._settings, again=False, dry_run=False, database=self._database) as replayer,
            aclosing(replayer.replay([row_id])) as results,
        ):
            async for each in results:
                return each.result, each.told
        raise AssertionError("every failure is told of")

    async def _living(self, job: str) -> UUID:
        """Return the id of a job that has not ended; raises DeskError when it has."""
        state = await self._states.of(job)
        # What has a transcript may be done again, by another instance than this.
        if state.state in ENDS and await commands.ended(self._database, [state.id]):
            raise DeskError(Trouble.CONFLICT, f"it has ended already: {state.state}")
        return state.id
