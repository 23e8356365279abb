import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from v2td import metrics
from v2td.admin import View, serve
from v2td.config import AdminSettings
from v2td.errors import ServiceError


def pytest_asyncio_loop_factories() -> Mapping[str, Any]:
    """The daemon runs on uvloop, and sockets are where loops differ."""
    return {"uvloop": uvloop.new_event_loop}


@dataclass
class Daemon:
    """What a view shows; a test changes it."""

    not_alive: str | None = None
    not_ready: str | None = None

    def view(self) -> View:
        return View(lambda: self.not_alive, lambda: self.not_ready, self.status)

    def status(self) -> dict[str, Any]:
        return {"ready": self.not_ready is None, "slots": [{"slot": 0}], "error": ServiceError("read", "gone")}


@asynccontextmanager
async def served(daemon: Daemon) -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        serve(AdminSettings(port=0), daemon.view()) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        yield session


async def test_the_probes_say_why_not() -> None:
    daemon = Daemon()
    async with served(daemon) as session:
        for path, field in (("/livez", "not_alive"), ("/readyz", "not_ready")):
            async with session.get(path) as answer:
                assert (answer.status, await answer.text()) == (200, "ok\n")
            setattr(daemon, field, "a slot hangs")
            async with session.get(path) as answer:
                assert (answer.status, await answer.text()) == (503, "a slot hangs\n")
            setattr(daemon, field, None)


async def test_status_is_json_of_what_the_daemon_says_now() -> None:
    daemon = Daemon()
    async with served(daemon) as session:
        async with session.get("/status") as answer:
            assert answer.content_type == "application/json"
            assert await answer.json() == {"ready": True, "slots": [{"slot": 0}], "error": "read: gone"}
        daemon.not_ready = "stopping"
        async with session.get("/status") as answer:
            assert (await answer.json())["ready"] is False


async def test_metrics_are_what_prometheus_reads() -> None:
    metrics.JOBS_FINISHED.labels("transcribed").inc(0)
    async with served(Daemon()) as session, session.get("/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        families = {family.name: family for family in text_string_to_metric_families(await answer.text())}
    assert families["v2td_jobs_finished"].type == "counter"
    assert families["v2t_transcription_duration_seconds"].type == "histogram"
    assert families["v2td_loop_lag_seconds"].documentation


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("GET", "/debug", 404), ("POST", "/status", 405)]
)
async def test_there_is_nothing_else(method: str, path: str, status: int) -> None:
    async with served(Daemon()) as session, session.request(method, path, data=b"x" * 10) as answer:
        assert answer.status == status


async def test_it_listens_on_loopback_only_and_stops_with_the_context() -> None:
    async with serve(AdminSettings(port=0), Daemon().view()) as port:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
        with pytest.raises(OSError, match="Connect"):
            await asyncio.open_connection("127.0.0.2", port)
    with pytest.raises(OSError, match="Connect"):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_client_that_says_nothing_does_not_hold_up_the_end() -> None:
    async with asyncio.timeout(5):
        async with serve(AdminSettings(port=0), Daemon().view()) as port:
            _reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /status HTTP/1.1\r\n")
            await writer.drain()
        writer.close()


async def test_a_port_in_use_is_our_fault_and_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=f"127.0.0.1:{port}: .*in use") as caught:
            async with serve(AdminSettings(port=port), Daemon().view()):
                pytest.fail("two servers on one port")
    assert "admin.port" in caught.value.hint


async def test_an_address_that_is_not_ours_is_our_fault() -> None:
    with pytest.raises(ServiceError, match="listen for the admin endpoint"):
        async with serve(AdminSettings(host="192.0.2.1", port=0), Daemon().view()):
            pytest.fail("that address belongs to nobody")
