"""whisper.cpp in a real daemon: its processes are killed, its server goes away, and every job has its row."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.daemon.conftest import Daemon, World, none_left
from tests.services import build, whisper_server
from v2td.bundled import ggml_file, recordings

pytestmark = pytest.mark.slow  # daemons, and models of whisper.cpp

SHORT = tuple(each for each in recordings() if each.seconds < 9)
ROUTING = {
    "routing__default": "child",
    "routing__fallback": ["local"],
    "routing__rules": [{"name": "served", "provider": "server", "tenant": "served"}],
}


def tables(url: str) -> list[dict[str, object]]:
    return [
        {"name": "child", "model": str(ggml_file()), "threads": 1},
        {"name": "server", "server_url": url, "model_name": "served"},
    ]


def pids(daemon: Daemon) -> list[int]:
    """The processes that held the model, the newest last."""
    told = [json.loads(line) for line in daemon.log.read_text().splitlines() if line.startswith("{")]
    return [each["pid"] for each in told if each["event"] == "whisper.cpp is ready"]


@pytest.mark.timeout(300)
async def test_killed_processes_and_a_server_that_goes_cost_no_job(world: World, tmp_path: Path) -> None:
    async with (
        whisper_server.running(build.built("whisper_server"), ggml_file(), tmp_path) as server,
        world.daemon(providers__whisper_cpp=tables(server.url), **ROUTING) as daemon,
    ):
        await world.submit(
            *(
                {"id": f"{number} {each.name}", "audio_url": f"{world.web}/{each.name}", "language": each.language}
                for number in range(4)
                for each in SHORT
            )
        )
        for finished in (2, 10, 20):
            await world.until_finished(finished, 60)
            os.kill(pids(daemon)[-1], signal.SIGKILL)
        await world.until_finished(4 * len(SHORT), 90)
        served = [
            {"id": f"{number} served", "audio_url": f"{world.web}/{SHORT[0].name}", "tenant": "served"}
            for number in range(4)
        ]
        await world.submit(*served[:2])
        await world.until_finished(4 * len(SHORT) + 2, 60)
        server.kill()
        await world.submit(*served[2:])
        await world.until_finished(4 * len(SHORT) + 4, 60)
        status = {each["name"]: each for each in (await daemon.status())["providers"]}
        assert await daemon.terminate() == 0
    texts = {each.name: each.text for each in SHORT}
    rows = await world.rows("SELECT job_id, provider, model, text, language, route FROM transcriptions")
    assert Counter((row["provider"], row["model"]) for row in rows) == {
        ("child", "demo-micro"): 4 * len(SHORT),
        ("server", "served"): 2,
        ("local", "demo"): 2,
    }
    for row in rows:
        name = row["job_id"].split()[1]
        assert row["text"] == (SHORT[0].text if name == "served" else texts[name]), row
    assert len(set(pids(daemon))) >= 3
    fallen = [json.loads(row["route"]) for row in rows if row["provider"] == "local"]
    assert all(server.url in each["tried"][0][1] for each in fallen if each["tried"])
    assert {status["child"]["in_flight"], status["server"]["in_flight"]} == {0}


async def test_a_killed_daemon_takes_its_whisper_cpp_along(world: World) -> None:
    table = {"name": "child", "model": str(ggml_file()), "threads": 1}
    async with world.daemon(providers__whisper_cpp=[table], routing__default="child") as daemon:
        (pid,) = pids(daemon)
        process = psutil.Process(pid)
        assert process.nice() > psutil.Process().nice()
        await daemon.kill()
        await none_left([process])


async def test_a_model_that_is_none_ends_the_daemon_with_its_name(world: World, tmp_path: Path) -> None:
    model = tmp_path / "model.bin"
    model.write_bytes(ggml_file().read_bytes()[:-1])
    table = {"name": "child", "model": str(model), "threads": 1}
    with pytest.raises(AssertionError) as caught:
        async with asyncio.timeout(60), world.daemon(providers__whisper_cpp=[table]):
            pass
    assert f"load {model}: cut off" in str(caught.value)
