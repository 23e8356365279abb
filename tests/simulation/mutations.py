"""Bugs built in on purpose: a simulation that does not find them proves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from v2td.intake import DeadLetters, poller
from v2td.intake.lookback import LookBack
from v2td.intake.membership import Membership
from v2td.intake.offsets import OffsetTracker, _Ledger
from v2td.intake.works import Work, Works
from v2td.progress import Journal
from v2td.store import Writer

Replace = Callable[[Any, str, Any], None]


def _commits_the_newest(replace: Replace) -> None:
    replace(_Ledger, "committable", property(lambda ledger: ledger.behind))


def _commits_one_too_many(replace: Replace) -> None:
    real = OffsetTracker.committable
    replace(OffsetTracker, "committable", lambda tracker: {each: at + 1 for each, at in real(tracker).items()})


def _resolves_before_it_is_durable(replace: Replace) -> None:
    real = Writer.write

    async def write(writer: Writer, outcome: Any) -> Any:
        writer.running = asyncio.create_task(real(writer, outcome))  # type: ignore[attr-defined]  # to keep it
        return outcome

    replace(Writer, "write", write)


def _takes_an_error_for_success(replace: Replace) -> None:
    real = Writer._attempt

    async def attempt(writer: Writer, entries: Any) -> Any:
        try:
            return await real(writer, entries)
        except Exception:  # noqa: BLE001 (that is the bug)
            return None

    replace(Writer, "_attempt", attempt)


def _fences_before_it_drains(replace: Replace) -> None:
    real = Membership.on_revoked

    async def on_revoked(member: Membership, partitions: Any) -> None:
        member._tracker.revoke()
        await real(member, partitions)

    replace(Membership, "on_revoked", on_revoked)


def _does_not_fence(replace: Replace) -> None:
    def resolve(tracker: OffsetTracker, ticket: Any) -> bool:
        ledger = tracker._ledgers.get(ticket.partition)
        if ledger is not None:
            ledger.resolve(ticket.offset)
        return ledger is not None

    replace(OffsetTracker, "resolve", resolve)
    replace(OffsetTracker, "revoke", lambda _: None)


def _receives_before_it_is_assigned(replace: Replace) -> None:
    class AlwaysSet(asyncio.Event):
        def is_set(self) -> bool:
            return True

    real = Membership.__init__

    def init(member: Membership, *args: Any, **options: Any) -> None:
        real(member, *args, **options)
        member.settled = AlwaysSet()

    replace(Membership, "__init__", init)


def _forgets_what_is_durable(replace: Replace) -> None:
    real = LookBack.durable

    async def durable(look_back: LookBack, partition: Any, first: int) -> Any:
        await real(look_back, partition, first)
        return {}

    replace(LookBack, "durable", durable)


def _begins_again_what_is_under_way(replace: Replace) -> None:
    replace(Works, "get", lambda _works, _at: None)


def _drops_the_ticket_of_a_repetition(replace: Replace) -> None:
    real = Works.get
    replace(Works, "get", lambda works, at: None if real(works, at) is None else Work([]))


def _sends_no_letter(replace: Replace) -> None:
    async def send(_letters: Any, _failure: Any) -> None:
        await asyncio.sleep(0)

    replace(DeadLetters, "send", send)


def _stays_blocked(replace: Replace) -> None:
    class OnceCleared(asyncio.Event):
        cleared = False

        def clear(self) -> None:
            self.cleared = True
            super().clear()

        def set(self) -> None:
            if not self.cleared:
                super().set()

    real = Writer.__init__

    def init(writer: Writer, *args: Any, **options: Any) -> None:
        real(writer, *args, **options)
        writer.healthy = OnceCleared()
        writer.healthy.set()

    replace(Writer, "__init__", init)


def _takes_another_windows_result(replace: Replace) -> None:
    def known(journal: Journal, _request: Any, _sha256: str) -> Any:
        journal._digest()
        return next(iter(journal._known.values()), None)

    replace(Journal, "known", known)


def _does_not_go_back_after_an_error(replace: Replace) -> None:
    async def go_back(_poller: poller.Poller) -> None:
        await asyncio.sleep(0)

    replace(poller.Poller, "_go_back", go_back)


MUTATIONS: dict[str, Callable[[Replace], None]] = {
    name.strip("_").replace("_", " "): value
    for name, value in list(globals().items())
    if name.startswith("_") and not name.startswith("__") and callable(value) and name != "_Ledger"
}


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Build the bug in for the block."""
    with ExitStack() as stack:

        def replace(target: Any, attribute: str, replacement: Any) -> None:
            stack.enter_context(mock.patch.object(target, attribute, replacement))

        MUTATIONS[name](replace)
        yield
