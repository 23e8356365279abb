"""Which processes still live: they may end between two looks, and a zombie does not."""

import psutil


def lives(process: psutil.Process) -> bool:
    """Whether the process exists and is not just waiting to be reaped by somebody else."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
