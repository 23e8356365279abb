"""Webhooks as the daemon sends them: whoever asked is told in the end, wherever a daemon is killed in between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.daemon.conftest import World
from tests.webhooks.conftest import new_secret, receiving, silence
from v2td import bundled, failpoints

SHORT = next(each for each in bundled.recordings() if each.seconds < 30)


async def until_delivered(world: World, count: int) -> None:
    async with asyncio.timeout(60):
        while len(await world.rows("SELECT FROM webhooks WHERE state = 'delivered'")) < count:
            await asyncio.sleep(0.1)


async def test_no_webhook_is_lost_when_daemons_are_killed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """First between the row and the note, then while the receiver thinks; the next daemon tells the same again."""
    secret = new_secret()
    async with receiving() as receiver:
        settings: dict[str, Any] = {
            "webhooks__secret": secret,
            "webhooks__allowed_networks": ["127.0.0.1/32"],
            "webhooks__allowed_ports": [int(receiver.url.split(":")[2].split("/")[0])],
            "testing__failpoints": True,
        }
        told = {"webhook_url": f"{receiver.url}?token=canary", "metadata": {"case": 9}}
        await world.submit({"id": "heard", "audio_url": f"{world.web}/{SHORT.name}", **told})
        with monkeypatch.context() as patch:
            patch.setenv(failpoints.VARIABLE, "pipeline.written=kill")
            async with world.daemon(**settings) as daemon:
                await asyncio.wait_for(daemon.process.wait(), 60)
        assert await world.finished() == 1
        assert await world.rows("SELECT FROM webhooks") == [], "it is durable, and nobody is to be told"

        receiver.answers += [silence]
        async with world.daemon(**settings) as daemon:
            await receiver.until(1)
            await daemon.kill()
        (row,) = await world.rows("SELECT *, next_at > now() AS taken FROM webhooks")
        assert (row["state"], row["attempts"], row["taken"]) == ("waiting", 1, True)
        await world.rows("UPDATE webhooks SET next_at = now()")  # as when the time of the killed one is over

        await world.submit({"id": "missing", "audio_url": f"{world.web}/nothing.wav", **told})
        async with world.daemon(**settings) as last:
            await until_delivered(world, 2)
            assert 'v2td_webhooks_total{result="delivered"} 2.0' in await last.metrics()
            assert await last.terminate() == 0
    first, *later = receiver.got
    messages = {each.id: each.verified(secret) for each in later}
    assert len(later) == 2
    heard = messages[first.id]
    assert heard == first.verified(secret), "the same once more"
    assert (heard["type"], heard["data"]["text"]) == ("transcription.completed", SHORT.text)
    (missing,) = [each for each in messages.values() if each is not heard]
    assert (missing["type"], missing["data"]["error_class"]) == ("transcription.failed", "not_found")
    assert missing["data"]["metadata"] == heard["data"]["metadata"] == {"case": 9}
    for each in (daemon, last):
        assert "canary" not in each.log.read_text()
        assert secret not in each.log.read_text()
