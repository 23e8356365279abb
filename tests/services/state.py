"""The state file: what runs, who owns it, and how a test reaches it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fcntl import LOCK_EX, flock
from pathlib import Path

from tests.services.processes import Process

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".services"
DEFAULT_FILE = FOLDER / "default.json"
FILE_VARIABLE = "V2TD_TEST_SERVICES"


@dataclass(frozen=True, slots=True)
class Services:
    """Where the running services are, and how to be let in.

    ``postgres_dsn`` is a superuser's, on the database ``postgres``.  MinIO sends the events of a bucket that asks for
    it by the ARN ``notification_arn`` to the Kafka topic ``notification_topic``.
    """

    kafka_bootstrap: str
    postgres_dsn: str
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: str
    s3_region: str
    notification_topic: str
    notification_arn: str


@dataclass(slots=True)
class State:
    """One set of services, as written to its state file.

    ``owner`` is None for a set that stays up after the command (``up``); otherwise the process without which the set
    has no reason to be (``run``).  ``services`` is None until all of them have answered.
    """

    owner: Process | None
    data_folder: str
    processes: list[Process] = field(default_factory=list)
    services: Services | None = None


def file_in_use() -> Path:
    """The state file that tests go by: the one named in the environment, else that of ``make services-up``."""
    return Path(os.environ.get(FILE_VARIABLE) or DEFAULT_FILE)


def read(file: Path) -> State | None:
    """The state in ``file``; None when there is no such file.  Raises ValueError when it is not a state file."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    try:
        return State(
            owner=Process(**raw["owner"]) if raw["owner"] else None,
            data_folder=raw["data_folder"],
            processes=[Process(**process) for process in raw["processes"]],
            services=Services(**raw["services"]) if raw["services"] else None,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file} is not a state file of these services: {error!r}") from error


def write(file: Path, state: State) -> None:
    """Replaces ``file`` in one step; only we may read it, as it holds passwords."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as output:
        json.dump(asdict(state), output, indent=2)
    draft.replace(file)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Holds the lock file ``file`` against other processes; blocks until it is free.

    The kernel lets go of the lock when its holder ends, however it ends.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as handle:
        flock(handle, LOCK_EX)
        yield
