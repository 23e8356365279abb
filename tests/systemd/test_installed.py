"""The life of the installed service under a real systemd: ready, at work, killed, frozen, stopped, several of it.

The long form is in `long_form.py`: make test-systemd.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from tests.systemd.conftest import INSTALL, SHORT, UNITS, Installed
from tests.systemd.container import Container
from v2td import bundled

pytestmark = pytest.mark.timeout(600)  # the first time a root folder is made

LONG = max(bundled.recordings(), key=lambda each: each.seconds).name


async def until(true: Callable[[], bool], seconds: float) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(true):
            await asyncio.sleep(0.1)


def test_what_is_installed(container: Container) -> None:
    assert container.run("id", "-un", "v2td") == "v2td\n"
    found = container.run("stat", "-c", "%n %A %U", "/etc/v2td/config.toml", "/etc/v2td/credentials", "/var/lib/v2td")
    assert found.splitlines() == [
        "/etc/v2td/config.toml -rw------- v2td",
        "/etc/v2td/credentials drwx------ root",
        "/var/lib/v2td drwx------ v2td",
    ]
    units = [f"{UNITS}/{name}" for name in ("v2td.service", "v2td@.service", "v2td.slice")]
    assert container.run("systemd-analyze", "verify", "--recursive-errors=no", *units) == ""
    # Nothing stands in the way of a machine that starts without /var or /etc being what they were.
    container.run("systemd-tmpfiles", "--create", "v2td.conf")


async def test_ready_hardened_at_work_and_drained(installed: Installed) -> None:
    container, unit = installed.container, "v2td@1.service"
    installed.start(unit)
    shown = container.show(unit, "ActiveState", "SubState", "StatusText", "Slice", "NRestarts")
    assert (shown["ActiveState"], shown["SubState"], shown["NRestarts"]) == ("active", "running", "0")
    assert shown["Slice"] == "v2td.slice"
    assert shown["StatusText"]
    assert container.show("v2td.slice", "CPUWeight")["CPUWeight"] == "50"

    # All that systemd promised is so, in the daemon and in each of its children.
    pids = container.run("systemctl", "show", "--property=MainPID", "--value", unit).split()
    pids += container.run("ps", "-o", "pid=", "--ppid", pids[0]).split()
    assert len(pids) >= 3  # a slot and a decoder
    for pid in pids:
        status = dict(line.split(":\t", 1) for line in container.run("cat", f"/proc/{pid}/status").splitlines())
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert status["Umask"] == "0077"
        assert container.run("stat", "-c", "%U", f"/proc/{pid}").strip() == "v2td"
    environment = container.run("cat", f"/proc/{pids[0]}/environ")
    assert "CREDENTIALS_DIRECTORY=" in environment
    assert "postgresql://" not in environment + container.run("cat", "/etc/v2td/config.toml")

    await installed.submit(SHORT)
    await installed.world.until_finished(1, 30)
    (row,) = await installed.world.rows("SELECT text FROM transcriptions")
    assert row["text"] == next(each.text for each in bundled.recordings() if each.name == SHORT)

    # What is under way when it is stopped is finished, durable and committed.
    await installed.submit(*(LONG for _ in range(2)))
    async with asyncio.timeout(20):
        while (await installed.status(1))["in_flight"] < 2:
            await asyncio.sleep(0.05)
    began = time.monotonic()
    await asyncio.to_thread(container.run, "systemctl", "stop", unit)
    assert container.show(unit, "Result", "ActiveState") == {"Result": "success", "ActiveState": "inactive"}
    assert "v2td@1.service: Deactivated successfully." in container.journal(unit)
    print(f"stopped within {time.monotonic() - began:.1f} s")
    assert await installed.world.finished() == 3
    assert await installed.world.uncommitted() == {}
    assert "postgresql://" not in container.journal(unit)


async def test_killed(installed: Installed) -> None:
    container, unit = installed.container, "v2td@1.service"
    installed.start(unit)
    children = container.run("ps", "-o", "pid=", "--ppid", container.main_pid(unit)).split()
    await installed.submit(SHORT, LONG)
    await installed.world.until_finished(1, 30)
    container.run("systemctl", "kill", "--kill-whom=main", "--signal=SIGKILL", unit)
    await until(
        lambda: container.show(unit, "NRestarts", "ActiveState") == {"NRestarts": "1", "ActiveState": "active"}, 45
    )
    assert "status=9/KILL" in container.journal(unit)
    assert all(container.ask("ps", "-p", child)[0] == 1 for child in children)  # none of the old ones is left
    await installed.world.until_finished(2, 40)
    rows = await installed.world.rows("SELECT count(*) AS n, count(DISTINCT id) AS jobs FROM transcriptions")
    assert rows == [{"n": 2, "jobs": 2}]


async def test_frozen(installed: Installed) -> None:
    """A loop that does not go on; with the patience of the installed unit it is in the long form."""
    container, unit = installed.container, "v2td@1.service"
    installed.drop_in("v2td@1", "WatchdogSec=3")
    installed.start(unit)
    container.run("kill", "-STOP", container.main_pid(unit))
    await until(
        lambda: container.show(unit, "NRestarts", "ActiveState") == {"NRestarts": "1", "ActiveState": "active"}, 60
    )
    assert "Watchdog timeout" in container.journal(unit)
    installed.remove_drop_in("v2td@1")
    await installed.submit(SHORT)
    await installed.world.until_finished(1, 30)


async def test_two_share_the_group(installed: Installed) -> None:
    container, units = installed.container, ("v2td@1.service", "v2td@2.service")
    installed.start(*units)

    async def shared_out() -> bool:
        rows = await installed.world.rows("SELECT partitions FROM instances WHERE seen_at > now() - interval '15 s'")
        return sorted(len(row["partitions"]) for row in rows) == [1, 1]

    async with asyncio.timeout(45):
        while not await shared_out():
            await asyncio.sleep(0.5)
    recordings = [each.name for each in bundled.recordings() if each.seconds < 20]
    await installed.submit(*recordings)
    await installed.world.until_finished(len(recordings), 60)
    # RemoveIPC would take the audio of the other one, if systemd did not wait for the last of the user.
    container.run("runuser", "-u", "v2td", "--", "touch", "/dev/shm/of-v2td")
    container.run("systemctl", "stop", units[0])
    container.run("test", "-e", "/dev/shm/of-v2td")
    await installed.submit(SHORT, SHORT, SHORT)
    await installed.world.until_finished(len(recordings) + 3, 45)
    container.run("systemctl", "stop", units[1])
    assert container.ask("test", "-e", "/dev/shm/of-v2td")[0] == 1
    assert await installed.world.uncommitted() == {}


async def test_an_upgrade_restarts_what_runs_and_uninstalling_leaves_nothing(installed: Installed) -> None:
    container, unit = installed.container, "v2td@2.service"
    container.run("systemctl", "enable", "--quiet", "v2td@2")
    installed.start(unit)
    before = container.main_pid(unit)
    said = await asyncio.to_thread(container.run, *INSTALL)
    assert f"stopping {unit}" in said
    assert "kept /etc/v2td/config.toml" in said
    assert container.main_pid(unit) not in ("0", before)
    said = await asyncio.to_thread(container.run, f"{INSTALL[-1].rpartition('/')[0]}/uninstall.sh", "--purge")
    assert "removed v2td" in said
    left = container.run(
        "find", "/etc", "/var", "/opt", "/run", "-xdev", "-name", "*v2td*", "-not", "-path", "*/journal/*"
    )
    assert left == ""
    assert container.ask("id", "v2td")[0] == 1
    assert container.show(unit, "LoadState")["LoadState"] == "not-found"
