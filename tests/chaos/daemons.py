"""Real daemons as processes: started, killed, stopped, and looked after for what they leave behind."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, Self

import aiohttp
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.living import lives
from v2td import failpoints

Kind = Literal["echo", "real", "corpus"]
COMMANDS: dict[Kind, tuple[str, ...]] = {
    "echo": ("-m", "tests.chaos.echo"),
    "real": ("-m", "v2td"),
    "corpus": ("-m", "tests.corpus.daemon"),  # with names that an attacker's name server would answer for
}
MARK = "CHAOS_MARK"  # in the environment of a daemon, and so of all its children
START_SECONDS = 60.0
ORPHAN_SECONDS = 2.0
STOP_SECONDS = 50.0  # drain, flush, commit and stop, by the settings' defaults
LOOK_SECONDS = 0.02
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)


class DaemonError(Exception):
    """A daemon did not do what it is to do; its log's end is in the message."""


@dataclass(slots=True)
class Daemon:
    """A daemon that was started; `mark` tells its processes from all others."""

    process: asyncio.subprocess.Process
    mark: str
    log: Path
    port: int = 0

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None

    async def ready(self, seconds: float = START_SECONDS) -> bool:
        """Wait until it says that it is ready; False when it ended before. DaemonError when that takes longer."""
        end = time.monotonic() + seconds
        while not self._said("ready"):
            if not self.running:
                return False
            if time.monotonic() > end:
                raise DaemonError(f"not ready after {seconds:g} s:\n{self.tail()}")
            await asyncio.sleep(LOOK_SECONDS)
        (said,) = self._said("admin endpoint")
        self.port = int(said["url"].split(":")[2].split("/")[0])
        return True

    def events(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines that say `event`."""
        return self._said(event)

    async def status(self) -> dict[str, Any]:
        """Return what /status says."""
        return dict(json.loads(await self._get("status")))

    async def metrics(self) -> dict[str, float]:
        """Return the metrics' values, the samples of one name summed up over their labels."""
        summed: Counter[str] = Counter()
        for family in text_string_to_metric_families(await self._get("metrics")):
            for sample in family.samples:
                summed[sample.name] += sample.value  # type: ignore[assignment]  # Counter is typed for integers
        return {name: float(value) for name, value in summed.items()}

    def processes(self) -> list[psutil.Process]:
        """Return the processes that it started and that still live, itself not among them, orphans included."""
        return [each for each in psutil.process_iter() if each.pid != self.process.pid and self._is_ours(each)]

    async def ended(self, seconds: float) -> int:
        """Wait for its end and return the exit status; DaemonError when that takes longer."""
        try:
            return await asyncio.wait_for(self.process.wait(), seconds)
        except TimeoutError:
            raise DaemonError(f"still there after {seconds:g} s:\n{self.tail()}") from None

    def tail(self, lines: int = 20) -> str:
        """Return the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    async def _get(self, path: str) -> str:
        url = f"http://127.0.0.1:{self.port}/{path}"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
            while True:
                async with session.get(url) as answer:
                    if answer.status != HTTPStatus.TOO_MANY_REQUESTS:  # who looks in a loop may be told to wait
                        answer.raise_for_status()
                        return await answer.text()
                await asyncio.sleep(1)

    def _said(self, event: str) -> list[dict[str, Any]]:
        quoted = json.dumps(event)
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if quoted in line]
        return [entry for line in lines if line.endswith("}") and (entry := json.loads(line)).get("event") == event]

    def _is_ours(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            return lives(process) and process.environ().get(MARK) == self.mark
        return False


class Daemons:
    """Starts the daemons of a world; an async context manager that leaves none behind.

    `orphans` counts processes that outlived their daemon by more than ORPHAN_SECONDS; `failpoints` are the places
    that went off.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Mapping[str, Any]]) -> None:
        self.all: list[Daemon] = []
        self.orphans = 0
        self._folder = folder
        self._settings = settings
        self._work_log = folder / "work.log"
        self._failpoint_log = folder / "failpoints.log"

    async def start(
        self,
        kind: Kind = "echo",
        *,
        failpoints: str = "",
        member: str | None = None,
        wait: bool = True,
        environment: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> Daemon:
        """Start a daemon; unless `wait` is False it is ready, or has ended, when this returns.

        `failpoints` are armed as V2TD_FAILPOINTS has them; `member` is its name in the group (static membership);
        `settings` are keys of the configuration with __ for the dot, None leaves one out. DaemonError when it ended
        although no failpoint is armed.
        """
        mark = f"{self._folder}-{len(self.all)}"  # the whole path: other runs have faults of this name, too
        log = self._folder / f"daemon-{len(self.all)}.log"
        config = self._config(len(self.all), settings | ({"kafka__group_instance_id": member} if member else {}))
        variables = {
            MARK: mark,
            "V2TD_FAILPOINTS": failpoints,
            "V2TD_FAILPOINTS_LOG": str(self._failpoint_log),
            "ECHO_LOG": str(self._work_log),
            **(environment or {}),
        }
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, *COMMANDS[kind], "run", "--config", str(config)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **variables},
                preexec_fn=_die_with_parent,
            )
        daemon = Daemon(process, mark, log)
        self.all.append(daemon)
        if wait and not await daemon.ready() and not failpoints:
            raise DaemonError(f"ended with {process.returncode} before it was ready:\n{daemon.tail()}")
        return daemon

    @asynccontextmanager
    async def running(self, kind: Kind = "echo", **arguments: Any) -> AsyncIterator[Daemon]:
        """As `start`; at the end of the block it is stopped by SIGTERM and has to end well, if it still runs."""
        daemon = await self.start(kind, **arguments)
        yield daemon
        if daemon.running:
            await self.stop(daemon)

    async def kill(self, daemon: Daemon) -> None:
        """Kill -9, and see to what it leaves behind."""
        if daemon.running:
            daemon.process.kill()
        await self.bury(daemon, START_SECONDS)

    async def stop(self, daemon: Daemon, seconds: float = STOP_SECONDS) -> float:
        """SIGTERM; returns the seconds to its end. DaemonError unless it exits with 0 in time."""
        began = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        code = await self.bury(daemon, seconds)
        if code != 0:
            raise DaemonError(f"exit status {code} after SIGTERM:\n{daemon.tail()}")
        return time.monotonic() - began

    async def bury(self, daemon: Daemon, seconds: float) -> int:
        """Wait for its end, count the children that it left behind, and return the exit status."""
        code = await daemon.ended(seconds)
        end = time.monotonic() + ORPHAN_SECONDS
        while (left := daemon.processes()) and time.monotonic() < end:
            await asyncio.sleep(LOOK_SECONDS)
        self.orphans += len(left)
        for each in left:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        return code

    @property
    def failpoints(self) -> set[str]:
        """The places that went off, in any daemon of the world."""
        return {line.split()[0] for line in self._failpoint_lines()} & set(failpoints.PLACES)

    @property
    def went_off(self) -> int:
        """How often any failpoint went off."""
        return len(self._failpoint_lines())

    def heard(self) -> Counter[str]:
        """Return how often the echo daemons began to hear each window, by "JOB WINDOW"."""
        if not self._work_log.exists():
            return Counter()
        return Counter(line.rpartition(" ")[0] for line in self._work_log.read_text().splitlines())

    @property
    def redone_ratio(self) -> float:
        """Windows that were heard again / different windows that were heard, by echo daemons."""
        heard = self.heard()
        return (heard.total() - len(heard)) / len(heard) if heard else 0.0

    def _failpoint_lines(self) -> list[str]:
        return self._failpoint_log.read_text().splitlines() if self._failpoint_log.exists() else []

    def _config(self, number: int, overrides: Mapping[str, Any]) -> Path:
        settings = {section: dict(keys) for section, keys in self._settings.items()}
        for key, value in overrides.items():
            section, name = key.split("__", 1)
            settings.setdefault(section, {})[name] = value
        text = "\n".join(
            f"[{section}]\n"
            + "\n".join(f"{name} = {json.dumps(value)}" for name, value in keys.items() if value is not None)
            for section, keys in settings.items()
        )
        path = self._folder / f"config-{number}.toml"
        path.touch(mode=0o600)
        path.write_text(text)
        return path

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for daemon in self.all:
            if daemon.running:
                with suppress(ProcessLookupError):
                    daemon.process.send_signal(signal.SIGCONT)
                    daemon.process.kill()
                await daemon.process.wait()


def _die_with_parent() -> None:
    """Runs in the child before exec: no daemon outlives the suite, however that ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
