"""A running daemon is looked into: profiles of the loop and its children, the heap, tasks, slots, a loop that hangs."""

from __future__ import annotations

import asyncio
import json
import re
import stat
import sys
import tarfile
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import psutil
import pytest

from tests.daemon.conftest import World
from v2td import bundled
from v2td.config import AdminSettings
from v2td.opening import _debugging

TOKEN = "a-token-of-the-tests-0123456789"
CANARY = "canary-in-a-query"
JOBS = 12
WAIT_SECONDS = 60


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not await condition():
            await asyncio.sleep(0.2)


async def test_a_daemon_is_looked_into(world: World) -> None:
    async with (
        world.daemon(admin__token=TOKEN) as daemon,
        aiohttp.ClientSession(
            f"http://127.0.0.1:{daemon.port}", headers={"Authorization": f"Bearer {TOKEN}"}
        ) as session,
    ):

        async def get(path: str, status: int = 200, **query: str) -> str:
            async with session.get(f"/debug/{path}", params=query) as answer:
                text = await answer.text()
                assert answer.status == status, text
                assert answer.headers.get("Content-Disposition", "attachment").startswith("attachment")
                return text

        async def found(path: str, **query: str) -> Any:
            return json.loads(await get(path, 200, **query))

        async with aiohttp.ClientSession() as stranger:
            for path in ("profile", "heap", "tasks", "slots", "loop"):
                async with stranger.get(f"http://127.0.0.1:{daemon.port}/debug/{path}") as answer:
                    assert answer.status == 401

        # Tasks: the daemon's own, with where they wait.
        tasks = await found("tasks")
        assert tasks["count"] == len(tasks["tasks"]) > 5
        assert any("v2td/intake" in "".join(each["stack"]) for each in tasks["tasks"])
        assert all(each["age_seconds"] >= 0 for each in tasks["tasks"])
        ages = {each["name"]: each["age_seconds"] for each in tasks["tasks"]}
        await until(lambda: older("loop watch", ages["loop watch"], found))

        # Children: each with its process and its stack.
        slots = await found("slots")
        names = set(slots["processes"])
        assert {"slot-0", "decoder-0"} <= names
        children = {each.pid for each in psutil.Process(daemon.process.pid).children(recursive=True)}
        for name, child in slots["processes"].items():
            assert child["pid"] in children, name
            assert any("process" in place for place in child["stack"]), child["stack"]

        # Profiles, while there is something to do.
        await world.submit(
            *(
                {"id": str(each), "audio_url": f"{world.web}/{bundled.recordings()[0].name}?{CANARY}"}
                for each in range(JOBS)
            )
        )
        html = await one_of_two(session)
        assert "<html" in html
        speedscope = await found("profile", seconds="1", format="speedscope")
        assert speedscope["$schema"].startswith("https://www.speedscope.app/")
        assert any("run" in frame["name"] for frame in speedscope["shared"]["frames"])
        for name in ("slot-0", "decoder-0"):
            async with session.get("/debug/profile", params={"seconds": "1", "format": "text", "of": name}) as answer:
                text = await answer.text()
                assert answer.status == 200, text
                assert re.match(r"py-spy$|sampler \(", answer.headers["X-V2td-Made-By"])
                assert "_process_worker" in text
        await get("profile", 404, of="slot-99")
        for query in ({"seconds": "0"}, {"seconds": "61"}, {"seconds": "x"}, {"format": "pdf"}):
            await get("profile", 400, **query)

        # The heap.
        first = await found("heap")
        assert first["tracing"]
        second = await found("heap", top="5")
        assert len(second["grown"]) == len(second["largest"]) == 5
        assert second["traced_bytes"] > 0
        assert not (await found("heap", stop="1"))["tracing"]

        # The loop: a histogram; it hangs for as long as its process is stopped.
        assert (await found("loop"))["lag_seconds"]["up_to"]["+Inf"] > 0
        process = psutil.Process(daemon.process.pid)
        before = (await found("loop"))["times_late"]
        process.suspend()
        await asyncio.sleep(0.5)
        process.resume()
        await until(lambda: late_again(before, found))
        await world.until_finished(JOBS, WAIT_SECONDS)
        everything = [await get(path) for path in ("tasks", "slots", "loop")]
        assert CANARY not in "".join([*everything, html, json.dumps(speedscope)])
        assert TOKEN not in "".join(everything)
        await bundle_holds_no_secret(world, daemon.port)


async def bundle_holds_no_secret(world: World, port: int) -> None:
    """Make a debug bundle of all this; it tells much, and neither secrets nor what was said or where it lay."""
    file = world.folder / "bundle.tar.gz"
    command = [sys.executable, "-m", "v2td", "debug", "bundle", "--config", str(world.folder / "config.toml")]
    process = await asyncio.create_subprocess_exec(
        *(*command, "--admin", f"http://127.0.0.1:{port}", "--output", str(file), "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, trouble = await process.communicate()
    assert process.returncode == 0, trouble.decode()
    told = json.loads(said)
    assert set(told["missing"]) <= {"journal.txt"}, told  # no daemon of systemd's runs here
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with tarfile.open(file) as archive:
        parts = {Path(each.name).name: archive.extractfile(each).read().decode() for each in archive}  # type: ignore[union-attr]  # all are files
    manifest = json.loads(parts["manifest.json"])
    assert {each["name"] for each in manifest["parts"] if each["error"] is None} | {"manifest.json"} == set(parts)
    assert json.loads(parts["group.json"])["state"] == "Stable"
    assert json.loads(parts["check.json"])["ok"]
    tables = {each["name"] for each in json.loads(parts["tables.json"])["tables"]}
    assert {"transcriptions", "failures"} <= tables
    assert json.loads(parts["tasks.json"])["count"] > 5
    assert "v2td_jobs_finished_total" in parts["metrics.txt"]
    rows = await world.rows("SELECT text, audio_url FROM transcriptions")
    assert len(rows) == JOBS
    settings = tomllib.loads((world.folder / "config.toml").read_text())
    password = settings["database"]["dsn"].split(":")[2].partition("@")[0]
    canaries = [TOKEN, CANARY, password, settings["s3"]["secret_key"], "en-01.flac"]
    for content in parts.values():
        for secret in (*canaries, *(row["text"] for row in rows), *(row["audio_url"] for row in rows)):
            assert secret
            assert secret not in content


async def one_of_two(session: aiohttp.ClientSession) -> str:
    """Ask for two profiles at once: one is made, the other refused; on a busy machine they may not meet at once."""

    async def ask() -> tuple[int, str]:
        async with session.get("/debug/profile", params={"seconds": "1"}) as answer:
            return answer.status, await answer.text()

    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            (status, html), (refused, why) = sorted(await asyncio.gather(ask(), ask()))
            assert status == 200, html
            if refused == 409:
                assert "profile of loop is being made" in why
                return html


async def older(name: str, age: float, found: Callable[..., Awaitable[Any]]) -> bool:
    """Whether a task has become older."""
    return any(each["name"] == name and each["age_seconds"] > age for each in (await found("tasks"))["tasks"])


async def late_again(before: int, found: Callable[..., Awaitable[Any]]) -> bool:
    """Whether the loop was late since."""
    told = await found("loop")
    return told["times_late"] > before and any(stall["seconds"] > 0.3 for stall in told["stalls"])


@pytest.mark.parametrize(
    ("admin", "served"),
    [
        ({"token": TOKEN}, True),
        ({}, False),
        ({"token": TOKEN, "debug": False}, False),
        ({"token": TOKEN, "enabled": False}, False),
        ({"token": TOKEN, "host": "0.0.0.0"}, False),
    ],
)
def test_only_who_sits_here_and_has_the_token_looks_in(admin: dict[str, Any], served: bool) -> None:
    children: Any = SimpleNamespace(children=dict, status=dict)
    assert (_debugging(AdminSettings.model_validate(admin), children, children) is not None) is served
