"""`python -I -S tether.py PARENT SIGNAL UID GID COMMAND…`: become COMMAND, and get SIGNAL when PARENT dies.

A program of its own, because code between fork and exec (preexec_fn) may deadlock in a process with threads. It is
started by path and imports nothing of v2td: it costs some 15 ms. UID and GID are those to run as; -1 stays.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def become(parent: int, signal_number: int, uid: int, gid: int, command: list[str]) -> None:
    """Replace this process by the command; exits with 1 when the parent is gone already."""
    if uid >= 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    # After the change of user, which would clear it; the exec keeps it.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 (no shell is wanted)


if __name__ == "__main__":
    _, parent, signal_number, uid, gid, *command = sys.argv
    become(int(parent), int(signal_number), int(uid), int(gid), command)
