"""Which failures a command means, and how it shows them."""

from __future__ import annotations

import base64
import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from v2td.errors import ErrorClass

if TYPE_CHECKING:
    from v2td.store import StoredFailure
    from v2td.store.ledger import FailedRecord, Selection

AGO = re.compile(r"(\d{1,6})([smhdw])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
TIME = "an ISO 8601 time (UTC unless it says otherwise), or how long ago: 90m, 12h, 3d."


class State(StrEnum):
    """What was done about a failure."""

    FAILED = "failed"
    REQUESTED = "requested"
    DROPPED = "dropped"


Jobs = Annotated[
    list[str] | None,
    typer.Argument(metavar="JOB", help="Ids of rows, or the messages' own ids.", show_default=False),
]
Classes = Annotated[
    list[ErrorClass] | None,
    typer.Option("--class", metavar="CLASS", help="Class of error; may be repeated.", show_default=False),
]
Topics = Annotated[
    list[str] | None,
    typer.Option("--topic", metavar="TOPIC", help="Topic of the job's record; may be repeated.", show_default=False),
]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help=f"Failed then or later: {TIME}", show_default=False)
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Failed before: as --since.", show_default=False)
]
States = Annotated[
    list[State] | None,
    typer.Option(
        "--state",
        metavar="failed|requested|dropped",
        help="What was done about it: failed and requested when not given; may be repeated.",
        show_default=False,
    ),
]
AtMost = Annotated[
    int | None, typer.Option("--limit", min=1, help="The newest so many; all when not given.", show_default=False)
]


def selection(
    jobs: list[str] | None,
    classes: list[ErrorClass] | None,
    since: str | None,
    until: str | None,
    *,
    topics: list[str] | None,
    states: list[State] | None,
) -> Selection:
    """Return what the options of a command say."""
    from v2td.store.ledger import Selection

    now = datetime.now(UTC)
    return Selection(
        tuple(jobs or ()),
        tuple(each.value for each in classes or ()),
        tuple(topics or ()),
        moment(since, now, "--since"),
        moment(until, now, "--until"),
        tuple(each.value for each in states or (State.FAILED, State.REQUESTED)),
    )


def moment(text: str | None, now: datetime, option: str) -> datetime | None:
    """Read a time, or how long ago it was."""
    if text is None:
        return None
    try:
        if ago := AGO.fullmatch(text):
            return now - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is not {TIME}", param_hint=option) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def state(failure: StoredFailure) -> State:
    """Return what was done about the failure."""
    return State(failure.replay_state or State.FAILED)


def line(failure: StoredFailure) -> str:
    """Return a failure in one line."""
    when = f"{failure.created_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    return "  ".join(
        (str(failure.id), when, failure.error_class, _where(failure), state(failure), printable(failure.reason))
    )


def told(failed: FailedRecord) -> str:
    """Return a failure and its record for a person to read."""
    failure, record = failed.failure, failed.record
    lines = {
        "row": str(failure.id),
        "job": printable(failure.job_id or "-"),
        "record": _where(failure) + (f", index {failure.record_index}" if failure.record_index else ""),
        "written": _time(failure.record_timestamp),
        "failed": _time(failure.created_at),
        "class": failure.error_class,
        "reason": printable(failure.reason),
        "attempts": str(failure.attempts),
        "state": state(failure).value,
        "recording": printable(failure.audio_url or "-"),
        "key": _text(record.key),
        **{f"header {printable(name)}": _text(value) for name, value in record.headers},
        "value": _text(record.value) + (" … (the dead letter has it whole)" if failed.cut else ""),
    }
    width = max(map(len, lines))
    return "".join(f"{name:<{width}}  {value}\n" for name, value in lines.items())


def entry(failure: StoredFailure) -> dict[str, Any]:
    """Return a failure as JSON."""
    values = asdict(failure) | {"state": state(failure).value}
    del values["replay_state"]
    return {name: value if isinstance(value, str | int | None) else _json(value) for name, value in values.items()}


def whole_entry(failed: FailedRecord) -> dict[str, Any]:
    """Return a failure and its record as JSON; bytes that are no UTF-8 as {"base64": "…"}."""
    record = failed.record
    return entry(failed.failure) | {
        "key": _json_bytes(record.key),
        "value": _json_bytes(record.value),
        "headers": [[name, _json_bytes(value)] for name, value in record.headers],
        "cut": failed.cut,
    }


def printable(text: str) -> str:
    """Return text that cannot steer a terminal: what a message brought in may try to."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _where(failure: StoredFailure) -> str:
    return f"{failure.topic}/{failure.kafka_partition}/{failure.kafka_offset}"


def _time(value: datetime | None) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f} UTC" if value else "-"


def _text(value: bytes | None) -> str:
    return "-" if value is None else printable(value.decode(errors="backslashreplace"))


def _json(value: Any) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)


def _json_bytes(value: bytes | None) -> str | dict[str, str] | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
