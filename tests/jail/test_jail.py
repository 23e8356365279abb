"""Real processes lock themselves in and try to get out. Needs Linux 6.12 with Landlock, and libseccomp."""

import errno
import os
import resource
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from v2td.child import Child, ChildDied
from v2td.errors import ServiceError
from v2td.jail import Jail, Means, breaches, limit_cpu, limit_process, means
from v2td.jail.trial import ATTEMPTS

NEEDED = Means(landlock_abi=6, seccomp=True)
NETWORK = {"connect over TCP", "send over UDP", "open a Unix socket"}
PROCESSES = {"run a program", "start a process"}
FILES = {"read a file", "write a file", "make a file", "remove a file", "list a folder"}
PARENT = {"signal its parent", "slow its parent down", "read its parent's environment", "reach into its parent"}


@pytest.fixture
def whole() -> Means:
    found = means()
    assert found.seccomp, "apt-get install libseccomp2, and pip install pyseccomp"
    assert found.landlock_abi >= NEEDED.landlock_abi, "these tests need Linux 6.12 with landlock among its lsm="
    return found


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("what nobody may know")
    return path


async def succeeds_in(jail: Jail | None, outside: Path) -> set[str]:
    async with Child("trial", breaches, (outside,), confine=None if jail is None else jail.enter) as child:
        return set(child.set_up)


async def call(jail: Jail, statement: str, **names: object) -> None:
    """Run a statement in a process that is locked in; raises what it raises."""
    async with Child("prisoner", int, confine=jail.enter) as child:
        await child.call(exec, statement, names, deadline_seconds=20)


async def test_nothing_gets_out(whole: Means, outside: Path) -> None:
    assert await succeeds_in(Jail((), (), whole), outside) == set()


async def test_without_a_jail_everything_does(outside: Path) -> None:
    """Else the test above would prove nothing."""
    assert (
        await succeeds_in(None, outside)
        == set(ATTEMPTS)
        == NETWORK | PROCESSES | FILES | PARENT | {"change a file's mode"}
    )


async def test_what_remains_without_seccomp(whole: Means, outside: Path) -> None:
    free = await succeeds_in(Jail((), (), replace(whole, seccomp=False)), outside)
    always = {"send over UDP", "open a Unix socket", "start a process", "change a file's mode", "slow its parent down"}
    assert free == always | (
        {"reach into its parent"} & free  # a pidfd alone lets it do nothing: Landlock forbids what comes next
    )


async def test_what_remains_without_landlock(whole: Means, outside: Path) -> None:
    free = await succeeds_in(Jail((), (), replace(whole, landlock_abi=0)), outside)
    assert free == FILES | {"read its parent's environment"}


def test_what_is_missing_is_said(whole: Means) -> None:
    assert whole.missing == ()
    assert "libseccomp2" in " ".join(replace(whole, seccomp=False).missing)
    assert "Landlock" in " ".join(replace(whole, landlock_abi=0).missing)


async def test_a_listener_is_never_reached(whole: Means) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        connect = "import socket; socket.create_connection(('127.0.0.1', port))"
        port = server.getsockname()[1]
        for found in (whole, replace(whole, seccomp=False), replace(whole, landlock_abi=0)):
            with pytest.raises(PermissionError):
                await call(Jail((), (), found), connect, port=port)
        with pytest.raises(BlockingIOError):
            server.accept()


async def test_files_that_it_is_given_are_there_and_no_others(whole: Means, tmp_path: Path, outside: Path) -> None:
    folders = {name: tmp_path / name for name in ("readable", "writable")}
    for folder in folders.values():
        folder.mkdir()
        (folder / "file").write_text("old")
    jail = Jail((folders["readable"],), (folders["writable"],), whole)
    await call(jail, "assert open(path).read() == 'old'", path=folders["readable"] / "file")
    await call(jail, "open(path, 'r+').write('new')", path=folders["writable"] / "file")
    assert (folders["writable"] / "file").read_text() == "new"
    refused: list[tuple[str, Path]] = [
        ("open(path, 'r+')", folders["readable"] / "file"),
        ("open(path, 'x')", folders["readable"] / "made"),
        ("open(path, 'x')", folders["writable"] / "made"),
        ("path.unlink()", folders["writable"] / "file"),
        ("path.rename(path.parent / 'moved')", folders["writable"] / "file"),
        ("path.symlink_to('/etc/passwd')", folders["writable"] / "link"),
        ("list(path.iterdir())", folders["readable"]),
        ("open(path)", Path("/etc/passwd")),
        ("open(path)", Path("/proc/self/root/etc/passwd")),
        ("open(path)", outside),
    ]
    (folders["readable"] / "way-out").symlink_to(outside)
    refused.append(("open(path)", folders["readable"] / "way-out"))
    for statement, path in refused:
        with pytest.raises(PermissionError):
            await call(jail, statement, path=path)


SYSCALL = """
import ctypes, os
if ctypes.CDLL(None, use_errno=True).syscall(*args) < 0:
    raise OSError(ctypes.get_errno(), "")
"""


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        pytest.param((425, 8, None), errno.EPERM, id="io_uring_setup"),
        pytest.param((435, None, 0), errno.ENOSYS, id="clone3"),
        pytest.param((452, -100, b"/dev/null", 0o777, 0), errno.ENOSYS, id="fchmodat2, newer than libseccomp 2.5"),
        pytest.param((1000,), errno.ENOSYS, id="a call of a later kernel"),
    ],
)
async def test_system_calls_of_the_last_years_are_no_way_out(
    whole: Means, args: tuple[Any, ...], expected: int
) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 (its number is what is looked at)
        await call(Jail((), (), whole), SYSCALL, args=args)
    assert caught.value.errno in (expected, errno.EPERM)


async def test_threads_work_and_are_locked_in_too(whole: Means, outside: Path) -> None:
    statement = """
import threading
from v2td.jail import breaches
found = []
thread = threading.Thread(target=lambda: found.extend(breaches(outside)))
thread.start()
thread.join()
assert found == [], found
"""
    await call(Jail((), (), whole), statement, outside=outside)


def test_a_process_with_threads_cannot_lock_itself_in(whole: Means) -> None:
    """It would not hold for those."""
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    try:
        with pytest.raises(OSError, match="threads cannot lock itself in"):
            Jail((), (), whole).enter()
    finally:
        done.set()
        other.join()


async def test_a_jail_that_fails_leaves_no_free_child() -> None:
    with pytest.raises(ServiceError, match="ended while it was starting"):
        async with Child("prisoner", int, confine=partial(exec, "raise OSError('refused')")):
            pytest.fail("it did start")


async def test_it_may_signal_itself(whole: Means) -> None:
    """abort() does."""
    async with Child("prisoner", int, confine=Jail((), (), whole).enter) as child:
        with pytest.raises(ChildDied, match="died"):
            await child.call(os.abort, deadline_seconds=10)


def limited(**changes: int) -> Callable[[], None]:
    return partial(limit_process, **{"memory_bytes": 1 << 30, "files": 100, "file_bytes": 1 << 30, **changes})


async def test_memory_is_bounded_beyond_what_was_there() -> None:
    async with Child("eater", limited(memory_bytes=300_000_000)) as child:
        assert await child.call(len, bytes(1), deadline_seconds=5) == 1
        await child.call(exec, "bytearray(200_000_000)", deadline_seconds=20)
        with pytest.raises(ChildDied, match="memory"):
            await child.call(exec, "bytearray(400_000_000)", deadline_seconds=20)


BURN = """
import time
until = time.process_time() + {seconds}
while time.process_time() < until:
    pass
"""


async def test_cpu_time_is_bounded_from_call_to_call() -> None:
    async with Child("burner", limit_cpu, (2,)) as child:
        for _ in range(2):  # more than two seconds in all
            await child.call(exec, BURN.format(seconds=1.3), deadline_seconds=30)
            await child.call(limit_cpu, 2, deadline_seconds=5)
        with pytest.raises(ChildDied, match="died"):
            await child.call(exec, BURN.format(seconds=20), deadline_seconds=60)


async def test_files_and_their_length_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.touch()
    async with Child("hoarder", limited(files=64, file_bytes=1000)) as child:
        with pytest.raises(OSError) as caught:  # noqa: PT011 (likewise)
            await child.call(exec, "held = [open('/dev/null') for _ in range(100)]", deadline_seconds=5)
        assert caught.value.errno == errno.EMFILE
        await child.call(os.truncate, path, 1000, deadline_seconds=5)
        with pytest.raises(OSError) as caught:  # noqa: PT011
            await child.call(os.truncate, path, 1001, deadline_seconds=5)
        assert caught.value.errno == errno.EFBIG
        core = await child.call(resource.getrlimit, resource.RLIMIT_CORE, deadline_seconds=5)
        assert core == (0, 0)
