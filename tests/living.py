"""Which processes still live, and how one is stopped in its tracks: both may take a moment."""

import os
import signal
import time
from pathlib import Path

import psutil


def lives(process: psutil.Process) -> bool:
    """Whether the process exists and is not just waiting to be reaped by somebody else."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def freeze(pid: int, seconds: float = 5.0) -> None:
    """Stop a process, and come back when none of its threads runs any more: on a busy machine that is not at once.

    Raises:
        TimeoutError: It still runs after so many seconds.
    """
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + seconds
    while not all(_state(thread) in "TtZX" for thread in Path(f"/proc/{pid}/task").iterdir()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} does not stop")
        time.sleep(0.001)


def _state(thread: Path) -> str:
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"
