"""What systemd hears: READY only when models are loaded and the group is joined, the watchdog, STOPPING, more time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.conftest import World
from v2td import bundled


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket of a service manager that wants to hear of its service every two seconds."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(str(path))
        datagrams.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")
        yield datagrams


def heard(manager: socket.socket) -> list[str]:
    lines: list[str] = []
    while True:
        try:
            lines += manager.recv(4096).decode().splitlines()
        except BlockingIOError:
            return lines


async def test_what_the_service_manager_hears(world: World, manager: socket.socket) -> None:
    long = next(each for each in bundled.recordings() if each.seconds > 60)
    async with world.daemon() as daemon:
        before = heard(manager)
        assert "READY=1" in before
        assert before.index("READY=1") > before.index("STATUS=starting: loading the model, joining the group")
        await asyncio.sleep(2.5)
        assert heard(manager).count("WATCHDOG=1") >= 2
        await world.submit(*({"audio_url": f"{world.web}/{long.name}"} for _ in range(6)))
        async with asyncio.timeout(20):
            while (await daemon.status())["in_flight"] == 0:
                await asyncio.sleep(0.05)
        assert await daemon.terminate() == 0
    after = heard(manager)
    assert "STOPPING=1" in after
    assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in after[after.index("STOPPING=1") :])
    assert "READY=1" not in after
