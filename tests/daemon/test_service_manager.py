"""What systemd hears: READY only when models are loaded and the group is joined, the watchdog, STOPPING, more time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.daemon.conftest import World
from v2td import bundled


@pytest.fixture
async def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[str]]:
    """What a service manager was told, line by line; it wants to hear of its service every two seconds."""
    lines: list[str] = []
    path = tmp_path / "notify"

    async def listen(datagrams: socket.socket) -> None:
        while True:
            lines.extend((await asyncio.get_running_loop().sock_recv(datagrams, 4096)).decode().splitlines())

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(str(path))
        datagrams.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")
        listening = asyncio.create_task(listen(datagrams))
        yield lines
        listening.cancel()


async def test_what_the_service_manager_hears(world: World, said: list[str]) -> None:
    long = next(each for each in bundled.recordings() if each.seconds > 60)
    async with world.daemon() as daemon:
        assert said.index("READY=1") > said.index("STATUS=starting: loading the model, joining the group")
        await asyncio.sleep(2.5)
        assert said.count("WATCHDOG=1") >= 2
        await world.submit(*({"audio_url": f"{world.web}/{long.name}"} for _ in range(6)))
        async with asyncio.timeout(20):
            while (await daemon.status())["in_flight"] == 0:
                await asyncio.sleep(0.05)
        assert await daemon.terminate() == 0
    after = said[said.index("STOPPING=1") :]
    assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in after)
    assert said.count("READY=1") == 1
