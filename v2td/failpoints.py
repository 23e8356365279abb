"""Named places in which a test makes the daemon die, hang or fail: what `tests/chaos` arms.

Nothing is armed unless the configuration says `testing.failpoints = true`. Then the variable V2TD_FAILPOINTS names
places and what is to happen there, children included, which inherit it:

    V2TD_FAILPOINTS='write.copied=kill@3, pipeline.fetched=raise'

`@3` is the third visit of a process; the first when it is not given. V2TD_FAILPOINTS_LOG is a file to which each
failpoint that goes off adds a line. Design after FreeBSD's fail(9) and TiKV's fail-rs.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "V2TD_FAILPOINTS"
LOG_VARIABLE = "V2TD_FAILPOINTS_LOG"
ARMED_VARIABLE = "V2TD_FAILPOINTS_ARMED"  # set by the daemon whose configuration allows it, for its children
LEAKED_BYTES = 200_000_000  # more than any child of the demo model grows by itself

PLACES = {
    "intake.received": "a polled batch is with the tracker, and its work has not begun",
    "pipeline.fetched": "a recording is downloaded",
    "pipeline.heard": "a job has its outcome, which is nowhere durable",
    "pipeline.output_written": "a transcript's files are in their bucket, and its row is not written",
    "pipeline.told": "an outcome is told in kafka.results_topic and noted for webhooks, and its record not resolved",
    "pipeline.letter_sent": "a dead letter is acknowledged, and its row is not written",
    "pipeline.written": "a job's outcome is durable, and its record is not resolved",
    "write.begin": "a transaction of outcomes has begun and holds nothing",
    "write.copied": "a transaction holds its rows and is not committed",
    "write.committed": "a transaction is committed, and nobody knows",
    "progress.written": "finished windows of an unfinished job are durable",
    "commit.begin": "offsets are about to be committed",
    "commit.done": "offsets are committed, and the tracker does not know",
    "revoke.begin": "partitions are about to be taken away",
    "revoke.drained": "what could be finished before a rebalance is, and not committed",
    "revoke.committed": "the last commit before a rebalance is done, and the epoch is not over",
    "assign.begin": "partitions were assigned, and nothing is known of them yet",
    "drain.begin": "SIGTERM came",
    "drain.done": "the drain is over, and outcomes may still wait to be written",
    "slot.batch": "(in a slot's process) a batch of windows arrived",
    "decoder.piece": "(in a decoder's process) a piece of a recording is asked for",
}

_RULE = re.compile(
    r"(?P<place>[a-z_.]+)=(?P<action>kill|segv|hang|raise|full|oom|leak|sleep(?P<seconds>\d*\.?\d+))"
    r"(@(?P<visit>\d+|\*))?"
)


class FailpointError(RuntimeError):
    """What the action `raise` raises."""


@dataclass(slots=True)
class _Rule:
    """`visit` 0: at each one."""

    action: str
    seconds: float
    visit: int
    visits: int = 0


_armed: dict[str, list[_Rule]] = {}
_leaked: list[bytearray] = []


def arm() -> list[str]:
    """Arm what V2TD_FAILPOINTS says; returns the places. ValueError for a word that makes no sense."""
    _armed.clear()
    for word in os.environ.get(VARIABLE, "").replace(",", " ").split():
        rule = _RULE.fullmatch(word)
        if rule is None or rule["place"] not in PLACES:
            raise ValueError(f"{VARIABLE}: {word} is no PLACE=ACTION@VISIT with a place of {', '.join(PLACES)}")
        visit = 0 if rule["visit"] == "*" else int(rule["visit"] or 1)
        action = "sleep" if rule["seconds"] else rule["action"]
        _armed.setdefault(rule["place"], []).append(_Rule(action, float(rule["seconds"] or 0), visit))
    os.environ[ARMED_VARIABLE] = "1"
    return sorted(_armed)


def log_file() -> Path | None:
    """Return where failpoints that go off are noted, so that a child may be allowed to; None when nothing is armed."""
    if not os.environ.get(ARMED_VARIABLE) or LOG_VARIABLE not in os.environ:
        return None
    path = Path(os.environ[LOG_VARIABLE])
    path.touch()
    return path


def arm_child() -> None:
    """Arm a child process as its parent, if that is armed."""
    if os.environ.get(ARMED_VARIABLE):
        arm()


async def reach(place: str) -> None:
    """Do here what is armed, and nothing otherwise; `hang` and `sleep` leave the event loop running."""
    if _armed and (rule := _due(place)) is not None:
        if rule.action == "hang":
            await asyncio.Event().wait()
        elif rule.action == "sleep":
            await asyncio.sleep(rule.seconds)
        else:
            _act(place, rule)


def reach_blocking(place: str) -> None:
    """Do here what is armed, and nothing otherwise; `hang` and `sleep` block the process."""
    if _armed and (rule := _due(place)) is not None:
        if rule.action == "hang":
            signal.pause()
        elif rule.action == "sleep":
            time.sleep(rule.seconds)
        else:
            _act(place, rule)


def _due(place: str) -> _Rule | None:
    for rule in _armed.get(place, ()):
        rule.visits += 1
        if rule.visit in (0, rule.visits):
            _note(place, rule)
            return rule
    return None


def _act(place: str, rule: _Rule) -> None:
    match rule.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segv":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "raise":
            raise FailpointError(f"failpoint {place}")
        case "full":
            raise OSError(errno.ENOSPC, f"failpoint {place}")
        case "oom":
            raise MemoryError(f"failpoint {place}")
        case "leak":
            _leaked.append(bytearray(os.urandom(1) * LEAKED_BYTES))


def _note(place: str, rule: _Rule) -> None:
    if log := os.environ.get(LOG_VARIABLE):
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(f"{place} {rule.action} {os.getpid()}\n")
