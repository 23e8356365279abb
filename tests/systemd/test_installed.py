"""The life of the installed service under a real systemd: ready, at work, killed, frozen, stopped, several of it.

The long form is in `long_form.py`: make test-systemd.
"""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.systemd.conftest import INSTALL, SHORT, UNITS, Installed
from tests.systemd.container import SOURCE, Container
from v2td import bundled

pytestmark = pytest.mark.timeout(600)  # the first time a root folder is made

LONG = max(bundled.recordings(), key=lambda each: each.seconds).name


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


async def test_ready_hardened_at_work_and_drained_by_an_upgrade(installed: Installed) -> None:
    container, unit = installed.container, "v2td@1.service"
    installed.start(unit)
    shown = container.show(unit, "ActiveState", "SubState", "StatusText", "Slice", "NRestarts")
    assert (shown["ActiveState"], shown["SubState"], shown["NRestarts"]) == ("active", "running", "0")
    assert shown["Slice"] == "v2td.slice"
    assert shown["StatusText"]
    pid = container.main_pid(unit)
    check_hardening(container, pid)
    environment = container.run("cat", f"/proc/{pid}/environ")
    assert "CREDENTIALS_DIRECTORY=" in environment
    assert "postgresql://" not in environment + container.run("cat", "/etc/v2td/config.toml")

    await installed.submit(SHORT)
    await installed.world.until_finished(1, 30)
    (row,) = await installed.world.rows("SELECT text FROM transcriptions")
    assert row["text"] == next(each.text for each in bundled.recordings() if each.name == SHORT)
    entries = container.run("journalctl", "--no-pager", "--output=json", "--priority=info", f"--unit={unit}")
    said_so = [each for each in map(json.loads, entries.splitlines()) if '"event": "transcribed"' in each["MESSAGE"]]
    assert [each["PRIORITY"] for each in said_so] == ["6"]  # journald took it off the line
    assert json.loads(said_so[0]["MESSAGE"])["level"] == "info"

    # An upgrade stops it: what is under way then is finished, durable and committed. Then the new one runs.
    await installed.submit(LONG, LONG)
    async with asyncio.timeout(20):
        while (await installed.status(1))["in_flight"] < 2:
            await asyncio.sleep(0.05)
    said = await asyncio.to_thread(container.run, *INSTALL)
    assert f"stopping {unit}" in said
    assert "kept /etc/v2td/config.toml" in said
    assert container.main_pid(unit) not in ("0", pid)
    assert await installed.world.finished() == 3
    assert await installed.world.uncommitted() == {}
    journal = container.journal(unit)
    assert f"{unit}: Deactivated successfully." in journal
    assert "was durable already" not in journal
    assert "postgresql://" not in journal


def check_hardening(container: Container, pid: str) -> None:
    """What systemd promised is so, in the daemon and in each of its children."""
    pids = [pid, *container.run("ps", "-o", "pid=", "--ppid", pid).split()]
    assert len(pids) >= 3  # a slot and a decoder
    filters = []
    for each in pids:
        status = dict(line.split(":\t", 1) for line in container.run("cat", f"/proc/{each}/status").splitlines())
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert status["Umask"] == "0077"
        filters.append(int(status["Seccomp_filters"]))
        assert container.run("stat", "-c", "%U", f"/proc/{each}").strip() == "v2td"
    assert max(filters) == filters[0] + 1  # decoders have locked themselves in


async def test_killed_and_frozen(installed: Installed) -> None:
    """The watchdog with the patience of the installed unit is in the long form."""
    container, unit = installed.container, "v2td@1.service"
    installed.drop_in("v2td@1", "WatchdogSec=3", "RestartSec=1")

    async def until_restarted(times: int) -> None:
        expected = {"NRestarts": str(times), "ActiveState": "active"}
        async with asyncio.timeout(45):
            while await asyncio.to_thread(container.show, unit, *expected) != expected:
                await asyncio.sleep(0.1)

    installed.start(unit)
    children = container.run("ps", "-o", "pid=", "--ppid", container.main_pid(unit)).split()
    await installed.submit(SHORT, LONG)
    await installed.world.until_finished(1, 30)
    container.run("systemctl", "kill", "--kill-whom=main", "--signal=SIGKILL", unit)
    await until_restarted(1)
    assert "status=9/KILL" in container.journal(unit)
    assert all(container.ask("ps", "-p", child)[0] == 1 for child in children)  # none of the old ones is left

    container.run("kill", "-STOP", container.main_pid(unit))
    await until_restarted(2)
    assert "Watchdog timeout" in container.journal(unit)
    await installed.world.until_finished(2, 40)
    rows = await installed.world.rows(
        "SELECT count(*) AS n, count(DISTINCT audio_url) AS recordings FROM transcriptions"
    )
    assert rows == [{"n": 2, "recordings": 2}]


async def test_two_share_the_group(installed: Installed) -> None:
    container, units = installed.container, ("v2td@1.service", "v2td@2.service")
    installed.start(*units)

    async def shared_out() -> bool:
        rows = await installed.world.rows("SELECT partitions FROM instances WHERE seen_at > now() - interval '15 s'")
        return sorted(len(row["partitions"]) for row in rows) == [1, 1]

    async with asyncio.timeout(45):
        while not await shared_out():
            await asyncio.sleep(0.5)
    await installed.submit(SHORT, SHORT)
    await installed.world.until_finished(2, 60)
    # RemoveIPC would take the audio of the other one, if systemd did not wait for the last of the user.
    container.run("runuser", "-u", "v2td", "--", "touch", "/dev/shm/of-v2td")
    container.run("systemctl", "stop", units[0])
    container.run("test", "-e", "/dev/shm/of-v2td")
    await installed.submit(SHORT, SHORT)
    await installed.world.until_finished(4, 45)
    container.run("systemctl", "stop", units[1])
    assert container.ask("test", "-e", "/dev/shm/of-v2td")[0] == 1
    assert await installed.world.uncommitted() == {}


async def test_uninstalling_leaves_nothing(installed: Installed) -> None:
    container = installed.container
    container.run("systemctl", "enable", "--quiet", "v2td@1", "v2td@2")
    container.run("systemctl", "start", "--no-block", "v2td@1")
    said = container.run(f"{SOURCE}/systemd/uninstall.sh", "--purge")
    assert "removed v2td" in said
    where = ("/etc", "/var", "/opt", "/run", "/dev/shm")
    assert container.run("find", *where, "-xdev", "-name", "*v2td*", "-not", "-path", "*/journal/*") == ""
    assert container.ask("id", "v2td")[0] == 1
    assert container.show("v2td@1", "LoadState", "ActiveState")["ActiveState"] != "active"
