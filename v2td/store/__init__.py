"""The store: Outcomes come in and are durable rows in Postgres when `Writer.write` returns; look-ups go out.

In: Transcript and Failure, DatabaseSettings. Out: rows, and frozen values read from them. It may block on Postgres
and on nothing else: a write for as long as Postgres is away, everything else within the settings' timeouts.

Beside the outcomes it keeps what unfinished jobs leave behind (progress), tells what a record may replay (replays),
lists, requests and drops failures (ledger), notes which transcriptions are to be done again (redos), carries what
people ask of jobs and of the intake to every instance (commands, listening), and writes down who changed what (audit).

The daemon's order: `upgrade`, then `open_database`, then `ensure_partitions` (and daily), then `Writer.run`.
"""

from v2td.store import audit, commands, ledger, redos, search
from v2td.store.instances import Instance, instance_name, report
from v2td.store.listening import Line, listening
from v2td.store.migrate import latest_version, schema_version, upgrade
from v2td.store.partitions import ensure as ensure_partitions
from v2td.store.pool import Database, open_database
from v2td.store.progress import (
    Unfinished,
    WindowRow,
    forget_old,
    load_windows,
    note_death,
    save_windows,
    unfinished,
)
from v2td.store.reader import (
    Reader,
    StoredFailure,
    StoredOutcome,
    StoredSegment,
    StoredTranscription,
    durable_jobs,
    outcomes,
)
from v2td.store.replays import find_replay, has_outcome
from v2td.store.results import find_result
from v2td.store.writer import Writer

__all__ = [
    "Database",
    "Instance",
    "Line",
    "Reader",
    "StoredFailure",
    "StoredOutcome",
    "StoredSegment",
    "StoredTranscription",
    "Unfinished",
    "WindowRow",
    "Writer",
    "audit",
    "commands",
    "durable_jobs",
    "ensure_partitions",
    "find_replay",
    "find_result",
    "forget_old",
    "has_outcome",
    "instance_name",
    "latest_version",
    "ledger",
    "listening",
    "load_windows",
    "note_death",
    "open_database",
    "outcomes",
    "redos",
    "report",
    "save_windows",
    "schema_version",
    "search",
    "unfinished",
    "upgrade",
]
