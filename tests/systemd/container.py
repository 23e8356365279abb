"""A real systemd as PID 1, in a container: `booted` starts one, `Container` runs commands in it.

Its root is thrown away at the end. The network is the machine's own, so the test services on loopback are reached.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.services.errors import ServiceError
from tests.services.state import ROOT
from tests.systemd.rootfs import site_packages

SOURCE = "/src"  # the checkout, inside
BOOT_SECONDS = 60.0
COMMAND_SECONDS = 120.0
_POWEROFF = signal.SIGRTMIN + 4  # to systemd: stop everything and power off


@dataclass(frozen=True, slots=True)
class Container:
    """`init` is the pid of its systemd as the machine sees it; `packages` where v2td's packages lie inside."""

    init: int
    packages: Path

    def ask(self, *command: str, given: str = "") -> tuple[int, str]:
        """Run a command as root inside; returns its exit status and all that it says."""
        done = subprocess.run(
            ["nsenter", "--all", f"--target={self.init}", "--", *command],
            input=given,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS,
            check=False,
            # Nothing of ours: neither PATH with a Python of the machine, nor V2TD_ variables.
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
            cwd="/",
        )
        return done.returncode, done.stdout

    def run(self, *command: str, given: str = "") -> str:
        """Run a command as root inside, which must succeed; returns all that it says."""
        status, said = self.ask(*command, given=given)
        assert status == 0, f"{' '.join(command)} ended with status {status}:\n{said}"
        return said

    def write(self, path: str, text: str, mode: str = "0644", owner: str = "root") -> None:
        """Write a file inside, and the folders above it."""
        command = ["install", "-D", "-m", mode, "-o", owner, "-g", owner, "/dev/stdin", path]
        self.run(*command, given=text)

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Return properties of a unit as systemd has them."""
        said = self.run("systemctl", "show", unit, *(f"--property={each}" for each in properties))
        return dict(line.split("=", 1) for line in said.splitlines())

    def main_pid(self, unit: str) -> str:
        """Return the pid of a service's daemon, inside; "0" when it has none."""
        return self.show(unit, "MainPID")["MainPID"]

    def journal(self, unit: str) -> str:
        """Return what a unit, and systemd about it, has said so far."""
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")


@contextlib.contextmanager
def booted(root: Path, log: Path) -> Iterator[Container]:
    """Boot what lies in `root`, which stays as it is; its console goes to `log`. Power it off at the end."""
    packages = site_packages(root)
    # If this process is killed, the container goes with it.
    command = ["setpriv", "--pdeathsig=KILL", "systemd-nspawn", "--quiet", f"--directory={root}", "--volatile=overlay"]
    command += ["--read-only", "--register=no", "--keep-unit", "--machine=v2td-test", "--console=pipe"]
    # systemd-nspawn 252 does not know Landlock, which decoders lock themselves in with.
    command += ["--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self"]
    command += [f"--bind-ro={ROOT}:{SOURCE}", "--boot"]
    with (
        log.open("wb") as console,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=console) as nspawn,
    ):
        try:
            container = Container(_init(nspawn, log), packages)
            _until_up(container, log)
            container.run("rm", "-rf", str(packages / "v2td"))
            container.run("cp", "-R", f"{SOURCE}/v2td", str(packages))
            yield container
            os.kill(container.init, _POWEROFF)
            nspawn.wait(BOOT_SECONDS)
        finally:
            nspawn.kill()


def _init(nspawn: subprocess.Popen[bytes], log: Path) -> int:
    """Return the pid of the systemd inside once it is there."""
    children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")
    deadline = time.monotonic() + BOOT_SECONDS
    while nspawn.poll() is None and time.monotonic() < deadline:
        for pid in children.read_text().split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    return int(pid)
        time.sleep(0.05)
    raise ServiceError(f"the container does not start:\n{log.read_text(errors='replace')}")


def _until_up(container: Container, log: Path) -> None:
    """Wait until systemd has started all that it starts at boot; `degraded` says that something of it failed."""
    deadline = time.monotonic() + BOOT_SECONDS
    state = ""
    while time.monotonic() < deadline:
        state = container.ask("systemctl", "is-system-running")[1].strip()
        if state in ("running", "degraded"):
            return
        time.sleep(0.1)
    raise ServiceError(f"the container does not come up, it is {state}:\n{log.read_text(errors='replace')}")
