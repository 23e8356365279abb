"""seccomp: system calls that a process gives up, by libseccomp.

A list of what is forbidden, and not of what is allowed, for the libraries inside (FFmpeg, ONNX Runtime, glibc) take
other calls with every version: network, new processes and programs, other processes, what administers a machine, and
whatever is newer than libseccomp, which answers "not implemented", as an older kernel would.
"""

from __future__ import annotations

import errno
import os
from importlib import import_module
from types import ModuleType
from typing import Protocol, cast

CLONE_THREAD = 0x0001_0000
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # put words into the mouth of who sits at the terminal
NEWEST_NUMBERS = range(424, 1024)  # the numbers of calls since Linux 5.1, and of those to come

NETWORK = (
    "socket socketpair connect bind listen accept accept4 sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg"
    " getsockname getpeername setsockopt getsockopt shutdown socketcall"
    " io_uring_setup io_uring_enter io_uring_register"  # they can do all of the above unseen
)
PROGRAMS = "execve execveat fork vfork"
OTHER_PROCESSES = (
    "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp pidfd_open pidfd_getfd"
    " pidfd_send_signal tkill migrate_pages move_pages setpgid setsid"
)
FILE_OWNERS = (  # Landlock does not look at these
    "chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat setxattr lsetxattr fsetxattr setxattrat removexattr"
    " lremovexattr fremovexattr removexattrat utime utimes utimensat futimesat mknod mknodat"
)
PRIVILEGES = (
    "setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset personality"
    " unshare setns chroot pivot_root mount umount umount2 mount_setattr move_mount open_tree fsopen fsconfig fsmount"
    " fspick open_by_handle_at name_to_handle_at quotactl quotactl_fd swapon swapoff acct sethostname setdomainname"
    " reboot kexec_load kexec_file_load init_module finit_module delete_module settimeofday clock_settime"
    " clock_adjtime adjtimex stime syslog vhangup iopl ioperm modify_ldt bpf perf_event_open userfaultfd lookup_dcookie"
    " add_key request_key keyctl fanotify_init nfsservctl uselib vm86 vm86old"
)
OTHER_MEMORY = "shmget shmat shmctl msgget msgsnd msgrcv msgctl semget semop semtimedop semctl mq_open mq_unlink"
FORBIDDEN = " ".join((NETWORK, PROGRAMS, OTHER_PROCESSES, FILE_OWNERS, PRIVILEGES, OTHER_MEMORY)).split()
# Of this process and its threads these take a 0; of another they could slow down the daemon.
TO_ITSELF = {"setpriority": 1, "ioprio_set": 1}  # and which argument says whose
TO_ITSELF |= dict.fromkeys(("sched_setaffinity", "sched_setparam", "sched_setscheduler", "sched_setattr"), 0)
TO_THIS_PROCESS = ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")  # abort() sends itself a signal


def library() -> ModuleType | None:
    """Return pyseccomp, which looks for the shared library when it is imported; None where that is not installed."""
    try:
        return import_module("pyseccomp")
    except (ImportError, RuntimeError, OSError):
        return None


class Rules(Protocol):
    """A filter; `load` makes it hold for all threads of this process, and OSError says that the kernel refuses."""

    def load(self) -> None:
        """Give up the system calls."""


def rules() -> Rules:
    """Return the filter; OSError without libseccomp."""
    seccomp = library()
    if seccomp is None:
        raise OSError(errno.ENOSYS, "libseccomp is not installed")
    refuse, missing = seccomp.ERRNO(errno.EPERM), seccomp.ERRNO(errno.ENOSYS)
    found = seccomp.SyscallFilter(seccomp.ALLOW)
    found.set_attr(seccomp.Attr.CTL_TSYNC, 1)
    native = seccomp.Arch.NATIVE
    known = {name: seccomp.resolve_syscall(native, name) for name in (*FORBIDDEN, "clone3")}
    for name in FORBIDDEN:
        if known[name] != -1:  # newer than this libseccomp; see below
            found.add_rule(refuse, known[name])
    for name in TO_THIS_PROCESS:
        found.add_rule(refuse, name, seccomp.Arg(0, seccomp.NE, os.getpid()))
    for name, whose in {"prlimit64": 0, **TO_ITSELF}.items():
        found.add_rule(refuse, name, seccomp.Arg(whose, seccomp.NE, 0))
    # Threads, no processes. clone3 hides its flags in memory; glibc does without it.
    found.add_rule(refuse, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, CLONE_THREAD, 0))
    found.add_rule(missing, known["clone3"])
    for request in (TIOCSTI, TIOCLINUX):
        found.add_rule(refuse, "ioctl", seccomp.Arg(1, seccomp.MASKED_EQ, 0xFFFF_FFFF, request))
    for number in NEWEST_NUMBERS:
        if _is_unknown(seccomp, number):
            found.add_rule(missing, number)
    return cast("Rules", found)


def _is_unknown(seccomp: ModuleType, number: int) -> bool:
    try:
        seccomp.resolve_syscall(seccomp.Arch.NATIVE, number)
    except ValueError:
        return True
    return False
