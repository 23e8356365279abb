"""`v2td demo` as a person runs it: the real daemon between the embedded services."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.demo.remains import (
    is_removed,
    processes_of,
    shared_memory_files,
    shared_memory_of,
    system_state,
    wait_until_gone,
)

Start = Callable[..., subprocess.Popen[str]]
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "v2td", "demo"]
SECONDS = 90  # longest wait for a demo, on a machine that does other things as well


@pytest.fixture
def place() -> Iterator[Path]:
    """A temporary folder of the test's own, short and open enough to be the demo's TMPDIR, with a HOME inside."""
    folder = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    folder.chmod(0o777)
    (folder / "home").mkdir(mode=0o777)
    (folder / "tmp").mkdir()
    (folder / "home").chmod(0o777)
    (folder / "tmp").chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def environment(place: Path) -> dict[str, str]:
    own = {"HOME": str(place / "home"), "TMPDIR": str(place / "tmp"), "PYTHONPATH": str(ROOT)}
    return {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"} | own


@pytest.fixture
def start(place: Path) -> Iterator[Start]:
    """Starts `v2td demo` with the flags given; a test that fails leaves no demo running."""
    with ExitStack() as stack:

        def start(*flags: str) -> subprocess.Popen[str]:
            demo = subprocess.Popen(
                [*DEMO, *flags], env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            stack.enter_context(demo)  # closes its pipe and waits for it
            stack.callback(demo.terminate)
            return demo

        yield start


def read_until(demo: subprocess.Popen[str], text: str) -> list[str]:
    """The demo's lines up to the one that has the text."""
    assert demo.stdout is not None
    lines = []
    for line in demo.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"the demo ended before {text!r}:\n{''.join(lines)}")


def end(demo: subprocess.Popen[str]) -> str:
    """Wait for the end; the rest of what it wrote."""
    output, _ = demo.communicate(timeout=SECONDS)
    return output


def leftovers(place: Path) -> list[Path]:
    return list((place / "tmp").iterdir())


def demo_folder_of(place: Path) -> Path:
    (folder,) = (place / "tmp").glob("v2td-demo-*")
    return folder


def run_once(place: Path, *prefix: str) -> None:
    """`v2td demo --once --json`, which must go well; `prefix` is the command that runs it."""
    command = [*prefix, *DEMO, "--once", "--json"]
    done = subprocess.run(
        command, env=environment(place), capture_output=True, text=True, timeout=SECONDS, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["jobs"], summary["transcribed"], summary["failed"]) == (16, 14, 2)
    assert summary["word_error_rate"] <= 0.02
    assert summary["speech_coverage_ratio"] > 0.95
    assert summary["audio_seconds"] == pytest.approx(252, abs=1)
    assert 0 < summary["wall_seconds"] < 60


def test_once_says_in_json_what_came_of_every_job_and_leaves_nothing(place: Path) -> None:
    inside = place / "tmp" / "demo"
    before = system_state(inside)
    run_once(place)
    assert leftovers(place) == []
    assert processes_of(place / "tmp") == []
    assert system_state(inside) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs the test above")
def test_an_ordinary_user_can_run_it(place: Path) -> None:
    run_once(place, *as_ordinary_user(environment(place)))
    assert leftovers(place) == []


def as_ordinary_user(env: dict[str, str]) -> list[str]:
    """What makes root's next command one of nobody's.

    Where this Python lies in a folder closed to others, a user namespace in which our own files are nobody's.
    """
    ways = (["runuser", "-u", "nobody", "--"], ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--"])
    for way in ways:
        trial = subprocess.run(
            [*way, sys.executable, "-c", "import v2td"], env=env, capture_output=True, cwd="/", check=False
        )
        if trial.returncode == 0:
            return way
    pytest.fail(f"neither runuser nor unshare --user can run {sys.executable} as nobody here: {trial.stderr.decode()}")


def test_without_once_it_shows_the_table_and_stays_until_told(place: Path, start: Start) -> None:
    demo = start()
    lines = "".join(read_until(demo, "Ctrl-C ends everything"))
    folder = demo_folder_of(place)
    processes = processes_of(folder)
    pids = {process.pid for process in processes}
    files = shared_memory_files(pids)
    for expected in (
        "en-long.ogg",
        "vi-01.flac",
        "not_audio",
        "bad_message",
        "psql",
        "/metrics",
        str(folder / "config.toml"),
    ):
        assert expected in lines
    assert (folder / "config.toml").stat().st_mode & 0o777 == 0o600
    assert demo.poll() is None
    demo.send_signal(signal.SIGINT)
    end(demo)
    assert demo.returncode == 0
    assert leftovers(place) == []
    assert wait_until_gone(processes, 0.5) == []
    assert shared_memory_of(pids) == []
    assert not any(path.exists() for path in files)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_ends_everything(place: Path, start: Start, number: signal.Signals) -> None:
    demo = start("--once")
    read_until(demo, "jobs are in the topic")
    processes = processes_of(demo_folder_of(place))
    assert processes
    demo.send_signal(number)
    end(demo)
    assert demo.returncode == 128 + number
    assert wait_until_gone(processes, 0.5) == []
    assert leftovers(place) == []


def test_kill_9_leaves_nothing(place: Path, start: Start) -> None:
    demo = start("--once")
    read_until(demo, "jobs are in the topic")
    folder = demo_folder_of(place)
    processes = processes_of(folder)
    pids = {process.pid for process in processes}
    files = shared_memory_files(pids)
    demo.kill()
    end(demo)
    assert wait_until_gone(processes, 5) == []
    assert shared_memory_of(pids) == []
    assert not any(path.exists() for path in files)
    assert is_removed(folder, 5)
    assert leftovers(place) == []


def test_a_daemon_that_dies_is_told_and_everything_ends(place: Path, start: Start) -> None:
    demo = start("--once")
    read_until(demo, "jobs are in the topic")
    (daemon,) = [child for child in psutil.Process(demo.pid).children() if "run" in child.cmdline()]
    daemon.kill()
    output = end(demo)
    assert demo.returncode == 1
    assert "run the daemon: it ended with code -9" in output
    assert leftovers(place) == []


def test_keep_stays_even_with_once_and_says_how_to_submit(place: Path, start: Start) -> None:
    demo = start("--once", "--keep")
    lines = read_until(demo, "Ctrl-C ends everything")
    assert any("v2td submit" in line for line in lines)
    time.sleep(0.5)
    assert demo.poll() is None
    demo.send_signal(signal.SIGHUP)  # its terminal is closed
    end(demo)
    assert demo.returncode == 0
    assert leftovers(place) == []
