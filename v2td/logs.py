"""structlog: a console for a person, JSON lines for a machine, one job id through every line of a job."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

CHATTY = ("aiokafka", "asyncio")  # libraries that say the same again and again
REPEAT_SECONDS = 10.0
PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))  # else debug, 7
MAX_VALUE_LENGTH = 2000  # characters of one value in a log line; what a message says may be long


def configure(level: str = "info", form: Literal["auto", "console", "json"] = "auto") -> None:
    """Send the logs of v2td and of its libraries to standard error, in the given form."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _plain,
    ]
    last: list[Processor]
    if console:
        last = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                exception_formatter=structlog.dev.plain_traceback,  # the default prints all variables, secrets too
            )
        ]
    else:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    logging.raiseExceptions = False  # its report of a line that cannot be written shows errors in words we leave out
    handler = logging.StreamHandler(sys.stderr)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler.setFormatter(_ForJournal(formatter) if not console and _is_journal(sys.stderr) else formatter)
    repeats = _Repeats()
    handler.addFilter(lambda record: not record.name.startswith(CHATTY) or repeats.filter(record))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # These speak of every request or of every heartbeat at info.
    for noisy in ("aiokafka", "botocore", "aiobotocore", "faster_whisper", "asyncio", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    logging.getLogger("aiokafka.cluster").setLevel(logging.CRITICAL)  # ten errors a second while a topic is missing


class _ForJournal(logging.Formatter):
    """Puts the priority before each line, as sd-daemon(3) has it: `journalctl -p warning` goes by that."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; journald takes the priority off again."""
        priority = next((number for level, number in PRIORITIES if record.levelno >= level), 7)
        return f"<{priority}>{self._inner.format(record)}"


def _is_journal(stream: TextIO) -> bool:
    """Tell whether journald reads the stream, as systemd says in the environment, which a redirection leaves."""
    try:
        status = os.fstat(stream.fileno())
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _Repeats(logging.Filter):
    """Lets a line through once in REPEAT_SECONDS: aiokafka says 50 times a second that a broker is away."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str, int], float] = {}  # by where it is said: a few dozen

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is new enough to be said."""
        where = record.name, record.pathname, record.lineno
        now = time.monotonic()  # a wall clock that was set back would have us silent for as long
        if now - self._last.get(where, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return False
        self._last[where] = now
        return True


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module; keyword arguments become fields."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def _plain(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Cut what is long, and escape what steers a terminal or turns its text around: JSON escapes only half of it."""
    for key, value in event.items():
        if not isinstance(value, str) or key == "exception":
            continue
        if len(value) > MAX_VALUE_LENGTH:
            value = value[:MAX_VALUE_LENGTH] + "…"  # noqa: PLW2901 (what is logged is the shorter one)
        event[key] = value if value.isprintable() else "".join(map(_escaped, value))
    return event


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()
