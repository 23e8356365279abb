"""Several providers in one daemon: the engine, programs, a group, one that fails, one for a language."""

from __future__ import annotations

import json
import stat
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.daemon.conftest import World
from tests.providers.example import install
from v2td import bundled

DOCS = Path(__file__).parents[2] / "docs"
PERCENTILES = next(
    text
    for text in (DOCS / "operations.md").read_text().replace("```", "\0").split("\0")
    if "PERCENTILE_CONT(0.50)" in text
).removeprefix("sql")
BY_RULE = "SELECT provider, route->>'rule' AS rule, count(*) FROM transcriptions GROUP BY 1, 2;"
SHORT = tuple(each for each in bundled.recordings() if each.seconds < 30)
ENGLISH = tuple(each for each in SHORT if each.language == "en")
VIETNAMESE = tuple(each for each in SHORT if each.language == "vi")

# A transcriber that knows the bundled recordings by heart, and no others.
KNOWING = f"""#!{sys.executable}
import hashlib, sys
from v2td.bundled import recordings
digest = lambda path: hashlib.sha256(open(path, "rb").read()).digest()
(found,) = [each for each in recordings() if digest(each.path) == digest(sys.argv[1])]
for each in found.segments:
    print(each.start, each.end, each.text, sep="\\t")
"""
FAILING = "#!/bin/sh\nexit 3\n"

RULES = [
    {"name": "by-heart", "provider": "knowing", "tenant": "knowing", "priority": 1},
    {"name": "shared", "provider": "pair", "tenant": "pair", "priority": 1},
    {"name": "in-vain", "provider": "failing", "tenant": "failing", "priority": 1, "fallback": ["local"]},
    {"name": "vietnamese", "provider": "knowing-vi", "language": "vi"},
]


def program(folder: Path, name: str, text: str) -> str:
    file = folder / name
    file.write_text(text)
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


def plugin(name: str, path: str, **more: object) -> dict[str, object]:
    return {"name": name, "entry_point": "program", "options": {"program": path, "model": "heart"}, **more}


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Install the example package of docs/providers.md for the daemon; returns tables that use it."""
    monkeypatch.setenv("PYTHONPATH", str(install(tmp_path / "package")))
    knowing, failing = program(tmp_path, "knowing", KNOWING), program(tmp_path, "failing", FAILING)
    return [
        plugin("knowing", knowing),
        plugin("knowing-vi", knowing),
        plugin("pair-a", knowing, group="pair", weight=2, concurrency=10),
        plugin("pair-b", knowing, group="pair", concurrency=10),
        plugin("failing", failing),
    ]


async def test_each_job_goes_to_its_provider(world: World, plugins: list[dict[str, object]]) -> None:
    jobs = [
        *({"id": f"local-{each.name}", "language": "en"} for each in ENGLISH[:2]),
        *({"id": f"detected-{each.name}"} for each in (ENGLISH[0], *VIETNAMESE[:2])),
        *({"id": f"knowing-{each.name}", "tenant": "knowing"} for each in SHORT[:3]),
        *({"id": f"pair-{each.name}", "tenant": "pair"} for each in SHORT[:6]),
        *({"id": f"failing-{each.name}", "tenant": "failing"} for each in ENGLISH[:2]),
        {"id": f"named-{ENGLISH[0].name}", "provider": "knowing-vi"},
    ]
    texts = {each.name: each.text for each in SHORT}
    await world.submit(*({**job, "audio_url": f"{world.web}/{job['id'].split('-', 1)[1]}"} for job in jobs))
    async with world.daemon(providers__plugins=plugins, routing__rules=RULES) as daemon:
        await world.until_finished(len(jobs), 60)
        told, status = await daemon.metrics(), await daemon.status()
        assert await daemon.terminate() == 0
    rows = {str(row["job_id"]): row for row in await world.rows("SELECT * FROM transcriptions")}
    assert set(rows) == {job["id"] for job in jobs}
    for name, row in rows.items():
        assert row["text"] == texts[name.split("-", 1)[1]], name
        assert row["speech_coverage_ratio"] > 0.9
    assert Counter((name.split("-")[0], row["provider"], row["model"]) for name, row in rows.items()) == {
        ("local", "local", "demo"): 2,
        ("detected", "local", "demo"): 1,
        ("detected", "knowing-vi", "heart"): 2,
        ("knowing", "knowing", "heart"): 3,
        ("pair", "pair-a", "heart"): 4,
        ("pair", "pair-b", "heart"): 2,
        ("failing", "local", "demo"): 2,
        ("named", "knowing-vi", "heart"): 1,
    }
    failing = json.loads(rows[f"failing-{ENGLISH[0].name}"]["route"])
    assert (failing["rule"], failing["chain"]) == ("in-vain", ["failing", "local"])
    assert failing["tried"] == [["failing", "the program ended with 3"]]
    detected = json.loads(rows[f"detected-{VIETNAMESE[0].name}"]["route"])
    assert (detected["rule"], detected["target"]) == ("vietnamese", "knowing-vi")
    assert detected["why"][0] == "by-heart: its tenant is none, not knowing"

    assert BY_RULE in (DOCS / "providers.md").read_text()
    by_rule = {(row["provider"], row["rule"]): row["count"] for row in await world.rows(BY_RULE)}
    assert by_rule["knowing", "by-heart"] == 3
    assert by_rule["local", "in-vain"] == 2
    assert by_rule["knowing-vi", None] == 1  # its message names it

    latencies = {row["provider"]: row for row in await world.rows(PERCENTILES)}
    assert {name: row["total"] for name, row in latencies.items()} == Counter(row["provider"] for row in rows.values())
    assert len(latencies) == 5
    assert all(0 < row["p50"] <= row["p95"] <= row["p99"] for row in latencies.values())

    assert 'v2td_provider_jobs_total{provider="failing",result="failed"} 2.0' in told
    assert 'v2td_provider_fallbacks_total{provider="failing"} 2.0' in told
    assert 'v2td_provider_jobs_total{provider="pair-a",result="ok"} 4.0' in told
    for each in latencies:
        assert f'v2t_provider_throughput_mbps{{provider="{each}"}}' in told
    assert [each["name"] for each in status["providers"]] == ["local", *(str(each["name"]) for each in plugins)]
    assert {each["in_flight"] for each in status["providers"]} == {0}


async def test_who_fails_is_left_alone_and_the_others_go_on(world: World, plugins: list[dict[str, object]]) -> None:
    jobs = [{"id": str(at), "tenant": "failing", "language": "en"} for at in range(30)]
    overrides = {"providers__breaker_jobs": 3, "providers__breaker_pause_seconds": 600}
    async with world.daemon(providers__plugins=plugins, routing__rules=RULES, **overrides) as daemon:
        for part in (jobs[:4], jobs[4:]):
            await world.submit(*({**job, "audio_url": f"{world.web}/{ENGLISH[0].name}"} for job in part))
            await world.until_finished(int(part[-1]["id"]) + 1, 60)
        status = {each["name"]: each for each in (await daemon.status())["providers"]}
        told = await daemon.metrics()
        assert await daemon.terminate() == 0
    rows = await world.rows("SELECT provider, count(*) AS n FROM transcriptions GROUP BY provider")
    assert rows == [{"provider": "local", "n": 30}]
    assert status["failing"]["open_seconds"] > 500
    assert status["local"]["open_seconds"] is None
    assert 'v2td_provider_open{provider="failing"} 1.0' in told
    failed = 'v2td_provider_jobs_total{provider="failing",result="failed"}'
    assert f"{failed} 3.0" in told or f"{failed} 4.0" in told  # the fourth may have begun before the third had failed


async def test_a_provider_that_cannot_be_had_ends_the_daemon_at_once(
    world: World, plugins: list[dict[str, object]]
) -> None:
    plugins[0]["entry_point"] = "progam"
    with pytest.raises(AssertionError) as caught:
        async with world.daemon(providers__plugins=plugins, routing__rules=RULES):
            pass
    told = str(caught.value)
    assert "the daemon ended with 1" in told
    assert "providers.plugins[0].entry_point = progam: install the package that brings this entry point" in told
    assert "did you mean program?" in told
