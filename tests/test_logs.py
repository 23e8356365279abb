"""What a process really writes to its standard error, in both forms."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, logging, sys
import structlog
from v2td import logs

logs.configure(sys.argv[1], sys.argv[2])
log = logs.get_logger("v2td.test")

async def job(name):
    with structlog.contextvars.bound_contextvars(job=name):
        log.info("begins", seconds=1.5)
        await asyncio.sleep(0.01)
        logging.getLogger("library").warning("from a %s", "library")
        log.debug("a detail")

async def main():
    await asyncio.gather(job("one"), job("two"))
    log.info("outside", text="x" * 10_000, language="tiếng Việt")
    log.info("a\\x1b[2Jb", job_id="\\x1b[31mred\\x9b2J\\u202eevil\\r\\nforged\\ud800\\u2028")
    logging.getLogger("aiokafka.consumer").info("every heartbeat")
    password = "hunter2"
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("failed")

asyncio.run(main())
print("out")
"""


def written(level: str, form: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, level, form], capture_output=True, check=True, text=True, encoding="utf-8"
    )
    assert done.stdout == "out\n", "logs go to standard error only"
    return done.stderr


@pytest.mark.parametrize("form", ["json", "auto"])  # auto: no terminal here
def test_json_lines_carry_the_job_through_everything(form: str) -> None:
    lines = [json.loads(line) for line in written("info", form).splitlines()]
    assert all({"event", "level", "timestamp"} <= set(line) for line in lines)
    by_event: dict[str, list[dict[str, object]]] = {}
    for line in lines:
        by_event.setdefault(str(line["event"]), []).append(line)
    assert {line["job"] for line in by_event["begins"]} == {"one", "two"}
    assert {line["job"] for line in by_event["from a library"]} == {"one", "two"}
    assert by_event["from a library"][0]["logger"] == "library"
    assert "job" not in by_event["outside"][0]
    assert by_event["outside"][0]["language"] == "tiếng Việt"
    assert len(str(by_event["outside"][0]["text"])) == 2001
    assert "ValueError: broken" in str(by_event["failed"][0]["exception"])
    assert "a detail" not in by_event
    assert "every heartbeat" not in by_event


def test_a_person_reads_lines() -> None:
    text = written("info", "console")
    assert "begins" in text
    assert "job=one" in text
    assert "ValueError: broken" in text
    assert "\x1b[" not in text, "no colours into a file"


@pytest.mark.parametrize("form", ["console", "json"])
def test_no_traceback_shows_the_values_of_variables(form: str) -> None:
    """They hold passwords and whole messages."""
    assert "hunter2" not in written("info", form)


@pytest.mark.parametrize("form", ["console", "json"])
def test_nothing_that_a_message_says_steers_a_terminal(form: str) -> None:
    text = written("info", form)
    assert all(line.isprintable() for line in text.splitlines())
    assert "red" in text
    assert text.count("forged") == 1
    assert not any(line.startswith("forged") for line in text.splitlines())


def test_the_level_is_kept() -> None:
    assert '"a detail"' in written("debug", "json")
    assert "begins" not in written("warning", "json")
    assert written("error", "json").count("\n") == 1


BROKEN = """
import sys
from v2td import logs

class Unprintable:
    def __repr__(self):
        raise RuntimeError("broken")

logs.configure("info", sys.argv[1])
try:
    raise ValueError("the key hunter2 is too short")
except ValueError:
    logs.get_logger("v2td.test").error("a line", value=Unprintable())
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_that_cannot_be_written_shows_nothing_else(form: str) -> None:
    done = subprocess.run([sys.executable, "-c", BROKEN, form], capture_output=True, text=True, check=False)
    assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.parametrize("redirected", [False, True])
def test_journald_is_told_the_priority(redirected: bool) -> None:
    """As sd-daemon(3) has it, where journald reads our standard error itself."""
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as read:
        status = os.fstat(writing)
        journal = f"{status.st_dev}:{status.st_ino + redirected}"
        subprocess.run(
            [sys.executable, "-c", PROGRAM, "info", "auto"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=writing,
            env={**os.environ, "JOURNAL_STREAM": journal},
        )
        os.close(writing)
        lines = read.read().splitlines()
    if redirected:
        assert all(line.startswith("{") for line in lines)
        return
    told = {json.loads(line[3:])["event"]: line[:3] for line in lines}
    assert (told["begins"], told["from a library"], told["failed"]) == ("<6>", "<4>", "<3>")
