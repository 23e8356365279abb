"""`v2td top` as people see it: a real group at work, in a real terminal, compared with the database."""

import asyncio
import json
import re
from functools import partial
from typing import Any

import psutil

from tests.cli.conftest import Answer, Run
from tests.daemon.conftest import World
from tests.top.pane import pane

CLIPS = ("en-01.flac", "en-02.ogg", "vi-01.flac")


def found(pattern: str, lines: list[str]) -> re.Match[str]:
    match = re.search(pattern, "\n".join(lines), re.MULTILINE)
    assert match, (pattern, lines)
    return match


def has(text: str, lines: list[str]) -> bool:
    return any(text in each for each in lines)


def fills(height: int, lines: list[str]) -> bool:
    return len(lines) == height and lines[0].startswith("v2td top") and lines[-1].startswith("q quit")


async def test_a_group_at_work(world: World, v2td: Run) -> None:
    async with world.daemon() as daemon:
        await world.submit(*({"audio_url": f"{world.web}/{clip}"} for clip in CLIPS))
        await world.submit({"audio_url": f"{world.web}/not-there.flac"})
        await world.until_finished(4, 60)
        async with asyncio.timeout(30):
            while await world.uncommitted():
                await asyncio.sleep(0.1)
        config = world.config(admin__port=daemon.port)
        piped = asyncio.ensure_future(v2td("top", "--once", "--interval", "1", "--json", "--config", config))
        async with pane(80, 24) as terminal:
            await terminal.type("echo as it was", "Enter")
            await terminal.v2td("top", "--interval", "1", "--config", config)
            lines = await terminal.until(lambda lines: has("SLOT", lines) and fills(24, lines))
            await matches(world, lines)

            await terminal.resize(120, 40)
            lines = await terminal.until(partial(fills, 40))
            assert found(r"group (\S+)$", lines)[1] == world.topic
            await terminal.resize(60, 20)
            lines = await terminal.until(partial(fills, 20))
            assert max(map(len, lines)) <= 60
            found(r"^INSTANCE ", lines)

            await terminal.type("p")
            await terminal.until(lambda lines: lines[0].endswith("PAUSED"))
            await terminal.type("s")
            await terminal.until(lambda lines: "sort by CPU" in lines[-1])
            await terminal.type("q")
            lines = await terminal.until(partial(has, "as it was"))
            assert not any("PROVIDER" in each for each in lines)
            await terminal.type("code=$?; clear; echo left with $code; stty -a", "Enter")
            lines = await terminal.until(partial(has, "left with 0"))
            assert "-icanon" not in " ".join(lines)
            assert "-echo " not in " ".join(lines)
        await told(world, daemon.port, await piped)


async def matches(world: World, lines: list[str]) -> None:
    """Compare the screen with the database."""
    (row,) = await world.rows(
        "SELECT count(*) AS n, percentile_cont(0.5) WITHIN GROUP (ORDER BY duration) AS p50 FROM transcriptions"
    )
    assert row["n"] == len(CLIPS)
    assert found(r"members (\d+) \((\w+)\)", lines).groups() == ("1", "Stable")
    assert found(r"lag (\d+)", lines)[1] == "0"
    assert found(r"errors (\S+) %: (\w+) (\d+)", lines).groups() == ("25", "not_found", "1")
    found(r"^failed +\d+ s ago +not_found: the server answered 404$", lines)
    local = found(r"^local +(\S+) +(\S+) +(\S+) (m?s)", lines)
    assert float(local[1]) == row["n"] / 5  # a minute
    shown = float(local[3]) / (1000 if local[4] == "ms" else 1)
    assert abs(shown - row["p50"]) <= 0.05 * max(1, row["p50"])
    (instance,) = await world.rows("SELECT * FROM instances")
    own = found(rf"^{re.escape(instance['name'])} +(\d+) +(?:-|\S+ %) +\d+ MB +(\d+) ", lines)
    assert own[1] == str(instance["slots"])
    assert own[2] in {"0", "4"}, "it reports before it has any, and ten seconds later again"
    assert len([each for each in lines if re.match(r"\d+ +(idle|busy) ", each)]) == instance["slots"]


async def told(world: World, port: int, answer: Answer) -> None:
    """Compare the JSON with the database."""
    assert (answer.code, answer.stderr) == (0, "")
    (line,) = answer.stdout.splitlines()
    figures: dict[str, Any] = json.loads(line)
    (sums,) = await world.rows("SELECT sum(audio_seconds) AS seconds FROM transcriptions")
    assert (figures["trouble"], figures["reached"]) == ({}, 3)
    assert figures["messages"]["topics"][0]["topic"] == world.topic
    assert (figures["messages"]["lag"], figures["messages"]["members"]) == (0, 1)
    assert (figures["messages"]["in_per_minute"], figures["messages"]["out_per_minute"]) == (0, 0)
    assert (figures["jobs"]["transcribed"], figures["jobs"]["failed"]) == (3, 1)
    assert figures["jobs"]["errors"] == {"not_found": 1}
    assert figures["jobs"]["per_minute"] == 4 / 5
    assert abs(figures["jobs"]["audio_seconds_per_second"] - sums["seconds"] / 300) < 1e-9
    assert figures["backlog"] == {"records": 0, "audio_seconds": 0.0, "drain_seconds": 0.0, "cores_needed": 0.0}
    (daemon,) = figures["daemons"]
    assert daemon["address"] == f"http://127.0.0.1:{port}"
    stages = {each["stage"]: each for each in daemon["stages"]}
    assert 0 < stages["transcribe"]["p50_seconds"] <= stages["transcribe"]["p95_seconds"]
    assert sum(each["windows"] for each in daemon["slots"]) >= len(CLIPS)
    assert all(each["rss_bytes"] > 0 and each["cpu_percent"] is not None for each in daemon["slots"])


async def test_ctrl_c_and_sigterm_leave_a_clean_terminal(v2td: Run) -> None:
    async with pane(80, 24) as terminal:
        for end in ("C-c", "TERM"):
            await terminal.type(f"clear; echo before {end}", "Enter")
            await terminal.type(f"export NO_COLOR={'' if end == 'C-c' else '1'}", "Enter")
            await terminal.v2td("top", "--kafka", "127.0.0.1:1", "--db", "postgresql://u:hunter2@127.0.0.1:1/x")
            lines = await terminal.until(lambda lines: "Postgres" in "".join(lines) and "Kafka" in "".join(lines))
            found(r"^Kafka 127.0.0.1:1: not reached: ", lines)
            found(r"^Postgres 127.0.0.1:1/x: not reached: ", lines)
            assert "hunter2" not in "".join(lines)
            assert has("\x1b[31m", await terminal.lines("-e")) == (end == "C-c"), "red, unless NO_COLOR is set"
            assert await terminal.tmux("display-message", "-p", "#{alternate_on} #{cursor_flag}") == "1 0\n"
            if end == "C-c":
                await terminal.type("C-c")
            else:
                (shell,) = (await terminal.tmux("list-panes", "-F", "#{pane_pid}")).split()
                (command,) = psutil.Process(int(shell)).children()
                command.terminate()
            await terminal.until(partial(has, f"before {end}"))
            assert await terminal.tmux("display-message", "-p", "#{alternate_on} #{cursor_flag}") == "0 1\n"
            await terminal.type("code=$?; clear; echo code $code; stty -a", "Enter")
            lines = await terminal.until(partial(has, "code 130"))
            assert "-icanon" not in " ".join(lines)
