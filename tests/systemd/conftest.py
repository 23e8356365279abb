"""v2td as install.sh installs it, under a real systemd, against the real Kafka and Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import v2td
from tests.conftest import MakeTopic
from tests.daemon.conftest import World
from tests.services.errors import ServiceError
from tests.services.processes import free_ports
from tests.services.state import Services
from tests.systemd import rootfs
from tests.systemd.container import SOURCE, Container, booted
from v2td.bundled.recordings import AUDIO

UNITS = "/etc/systemd/system"
INSTALL = ("env", "VENV=keep", f"{SOURCE}/systemd/install.sh")
SHORT = "en-01.flac"


@dataclass(frozen=True, slots=True)
class Installed:
    """v2td in a container, its config naming topics and a database of this test's own: `world` looks at these."""

    container: Container
    world: World
    audio: str
    ports: tuple[int, ...]

    async def status(self, instance: int) -> dict[str, Any]:
        """Return what `v2td@instance` says of itself."""
        url = f"http://127.0.0.1:{self.ports[instance - 1]}/status"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return dict(await answer.json())

    async def submit(self, *names: str) -> None:
        """Submit bundled recordings, as files that the service may read."""
        await self.world.submit(*({"audio_url": f"file://{self.audio}/{name}"} for name in names))

    def start(self, *units: str) -> None:
        """Start units; returns when they are ready. When they fail, what they said is in the failure."""
        status, said = self.container.ask("systemctl", "start", *units)
        journals = "\n".join(self.container.journal(unit) for unit in units) if status else ""
        assert status == 0, f"{said}\n{journals}"

    def drop_in(self, unit: str, *lines: str) -> None:
        """Write a drop-in for a unit as a person would, and let systemd know."""
        text = "\n".join(("[Service]", *lines, ""))
        # Of two files with one name, the instance's hides the template's.
        self.container.write(f"{UNITS}/{unit}.service.d/for-{unit}.conf", text)
        self.container.run("systemctl", "daemon-reload")

    def remove_drop_in(self, unit: str) -> None:
        self.container.run("rm", f"{UNITS}/{unit}.service.d/for-{unit}.conf")
        self.container.run("systemctl", "daemon-reload")


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A systemd that runs, with v2td installed by the script."""
    try:
        root = rootfs.build()
        with booted(root, tmp_path_factory.mktemp("console") / "console.log") as container:
            print(container.run(*INSTALL))
            yield container
    except ServiceError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
async def installed(
    container: Container, services: Services, database: str, topic: MakeTopic, tmp_path: Path
) -> AsyncIterator[Installed]:
    """v2td configured and not started; everything of it is stopped at the end."""
    jobs, letters = await topic(partitions=2, name="jobs"), await topic(name="letters")
    world = World(services, database, jobs, letters, "http://127.0.0.1:1", tmp_path)
    audio = str(container.packages / "v2td" / AUDIO.relative_to(Path(v2td.__file__).parent))
    # The DSN, with its password, comes as a credential and stands nowhere else.
    settings = {"engine__slots": 1, "engine__threads": 1, "fetch__file_roots": [audio], "fetch__spool_dir": None}
    config = world.config(database__dsn=None, admin__port=None, **settings).read_text()
    container.write("/etc/v2td/config.toml", config, "0600", "v2td")
    container.write("/etc/v2td/credentials/database.dsn", database, "0600")
    ports = free_ports(2)
    for instance, port in enumerate(ports, start=1):
        container.write(f"/etc/v2td/{instance}.env", f"V2TD_ADMIN__PORT={port}\n")
    here = Installed(container, world, audio, tuple(ports))
    here.drop_in("v2td@", "LoadCredential=database.dsn:/etc/v2td/credentials/database.dsn")
    try:
        yield here
    finally:
        container.ask("systemctl", "kill", "--signal=SIGKILL", "v2td@*.service")
        container.ask("systemctl", "stop", "v2td@*.service")
        container.ask("systemctl", "reset-failed")
        container.ask("find", UNITS, "-name", "for-*.conf", "-delete")
        container.ask("systemctl", "daemon-reload")
