"""A real Prometheus scrapes a real daemon with the token, evaluates our rules, and answers every panel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.daemon.conftest import World
from tests.prometheus.files import ALERTS, RULES, alerts, dashboard
from tests.services import prometheus
from tests.services.errors import ServiceError
from tests.services.prometheus import Prometheus
from v2td import bundled

TOKEN = "a-token-of-the-tests-0123456789"
WAIT_SECONDS = 60


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not await condition():
            await asyncio.sleep(0.2)


async def rules_are_well(server: Prometheus) -> None:
    """Wait until every rule was evaluated; fail if one has an error."""

    async def evaluated() -> bool:
        groups = (await server.get("rules"))["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert len(rules) > 60
        assert [rule["lastError"] for rule in rules if "lastError" in rule] == []
        return all(rule["health"] == "ok" for rule in rules)

    await until(evaluated)


async def panels_are_answered(server: Prometheus) -> set[str]:
    """Ask what each panel asks; return the titles of those that have something to show."""
    shown = set()
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            expr = target["expr"].replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")
            if await server.query(expr):
                shown.add(panel["title"])
    return shown


async def test_a_daemon_is_watched(world: World, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    async with world.daemon(admin__host="0.0.0.0", admin__token=TOKEN) as daemon:
        target = f"127.0.0.1:{daemon.port}"
        async with prometheus.running(tmp_path, [target], [RULES, ALERTS], token_file) as server:
            await until(lambda: server.query('up{job="v2td"} == 1'))
            await world.submit({"id": "watched", "audio_url": f"{world.web}/{bundled.recordings()[0].name}"})
            await until(lambda: server.query("job:v2td_messages_per_minute:rate5m > 0"))
            await rules_are_well(server)
            with pytest.raises(ServiceError, match="parse error"):
                await server.query("sum by (")

            # Series that every daemon has after one job; others take a while, or trouble, to come.
            await until(lambda: server.query("job:v2td_lag:sum + job:v2td_memory:sum"))
            await until(lambda: server.query("instance:v2td_busy_cores:rate5m"))
            await until(lambda: server.query('job:v2td_slo_errors:ratio_5m{slo="speed"} == 0'))
            shown = await panels_are_answered(server)
            assert {"Processing rate", "Queue lag", "CPU", "Memory", "Work per second of audio"} <= shown
            assert {"Slots by state", "Time in a stage, p95", "Throughput", "Lag by partition"} <= shown

            known = {
                rule["name"] for group in (await server.get("rules", type="alert"))["groups"] for rule in group["rules"]
            }
            assert known == {rule["alert"] for rule in alerts()}
            calling = await server.query('ALERTS{alertname=~"V2td.*"}')
            assert [each["metric"]["alertname"] for each in calling] == []
            daemon.process.kill()
            await until(lambda: server.query('ALERTS{alertname="V2tdDown",alertstate="pending"}'))
