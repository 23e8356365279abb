"""Redis before Postgres: with it texts come sooner, and without it, slower; never another one."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from prometheus_client import REGISTRY
from pydantic import SecretStr

from tests.results.test_cache import AUDIO, ONE, OTHER, counted, heard, text_of, write
from tests.services import redis as service
from tests.services.processes import free_ports
from tests.store.conftest import Writing
from tests.store.outcomes import segment
from v2td.config import CacheSettings
from v2td.errors import ConfigError
from v2td.jobs import Word
from v2td.results import ResultCache
from v2td.results.codec import encode, key_of
from v2td.results.found import of_transcript
from v2td.store import Database
from v2td.store.connection import Connection

__all__ = ["counted"]

Counted = Callable[[], dict[str, int]]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[service.Server]:
    async with service.running(tmp_path) as running:
        yield running


def caching(store: Database, url: str, **changes: Any) -> ResultCache:
    """The cache of one daemon: a new one has nothing in memory."""
    return ResultCache(store, CacheSettings(results=True, redis_url=SecretStr(url), **changes))


def errors() -> float:
    return REGISTRY.get_sample_value("v2td_redis_errors_total") or 0.0


async def keep(store: Database, server: service.Server, offset: int = 1, **changes: Any) -> None:
    """Let a daemon transcribe, and end before its row is durable: the text is in Redis alone."""
    cache = caching(store, server.url)
    async with cache, cache.lease(changes.get("audio_sha256", AUDIO), [ONE]) as lease:
        assert lease.found is None
        lease.settle(heard(offset, **changes))


async def found_at(store: Database, server: service.Server, audio: str = AUDIO, **changes: Any) -> str | None:
    """Where a new daemon finds the text."""
    cache = caching(store, server.url, **changes)
    async with cache, cache.lease(audio, [OTHER, ONE]) as lease:
        return lease.found.level if lease.found else None


async def test_a_text_in_redis_makes_full_rows(
    store: Database, server: service.Server, writing: Writing, sql: Connection, counted: Counted
) -> None:
    await keep(store, server, timings={"flags": ["repetition"]})
    cache = caching(store, server.url)
    async with cache, cache.lease(AUDIO, [OTHER, ONE]) as lease:
        transcript = text_of(lease, 2)
    await write(writing, heard(1), transcript)
    assert counted() == {"none": 1, "redis": 1}
    first, second = await sql.fetch("SELECT * FROM transcriptions ORDER BY kafka_offset")
    same = ("text", "language", "provider", "model", "options_sha256", "audio_sha256", "speech_coverage_ratio")
    assert [first[name] for name in same] == [second[name] for name in same]
    assert second["cached_from"] == first["id"]
    assert second["timings"] == {"fetch": 0.1, "flags": ["repetition"], "cached": "redis"}
    texts = await sql.fetch("SELECT text FROM transcript_segments WHERE transcription_id = $1", second["id"])
    assert [row["text"] for row in texts] == ["good morning", " everyone "]


async def test_a_long_text_comes_back_too(store: Database, server: service.Server) -> None:
    words = tuple(Word(n * 0.4, n * 0.4 + 0.3, f" word{n}", n / 20_000) for n in range(20_000))
    segments = tuple(segment("", words[at : at + 20]) for at in range(0, 20_000, 20))
    await keep(store, server, segments=segments)
    cache = caching(store, server.url)
    async with cache, cache.lease(AUDIO, [ONE]) as lease:
        assert lease.found is not None
        assert (lease.found.level, lease.found.segments) == ("redis", segments)


async def test_over_tls_and_by_a_socket(store: Database, tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    certificate, trusted, wrong = tmp_path / "server.pem", tmp_path / "ca.pem", tmp_path / "wrong.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    authority.cert_pem.write_to_path(trusted)
    stranger.cert_pem.write_to_path(wrong)
    async with service.running(tmp_path, certificate, trusted) as server:
        await keep(store, server)
        assert await found_at(store, server) == "redis"
        for url, known in (server.socket_url, True), (server.url.replace(trusted.name, wrong.name), False):
            async with caching(store, url) as cache, cache.lease(AUDIO, [ONE]) as lease:
                assert (lease.found is not None) is known, url


async def test_a_text_lives_for_its_time(store: Database, server: service.Server) -> None:
    cache = caching(store, server.url, redis_ttl_seconds=100)
    async with cache, cache.lease(AUDIO, [ONE]) as lease:
        lease.settle(heard(1))
    async with server.client() as client:
        assert 90_000 < await client.pttl(key_of(AUDIO, ONE)) <= 100_000
        assert await client.dbsize() == 1


async def test_what_postgres_has_is_in_redis_from_then_on(
    store: Database, server: service.Server, writing: Writing, sql: Connection
) -> None:
    await write(writing, heard(1))
    assert await found_at(store, server) == "postgres"
    await sql.execute("DELETE FROM transcriptions")
    assert await found_at(store, server) == "redis"


@pytest.mark.parametrize("kind", ["bytes", "another text", "another type"])
async def test_garbage_is_ignored_and_replaced(
    store: Database, server: service.Server, writing: Writing, kind: str
) -> None:
    await write(writing, heard(1))
    other = encode(of_transcript(heard(9, "not this one", audio_sha256="cd" * 32)))
    assert other is not None
    async with server.client() as client:
        if kind == "another type":
            await client.rpush(key_of(AUDIO, ONE), "x")
        else:
            await client.set(key_of(AUDIO, ONE), b"\x00garbage" if kind == "bytes" else other)
    assert await found_at(store, server) == "postgres"
    assert await found_at(store, server) == "redis"


async def test_what_the_settings_refuse_by_now_is_not_found(store: Database, server: service.Server) -> None:
    await keep(store, server, truncated=True)
    settings = CacheSettings(results=True, redis_url=SecretStr(server.url))
    cache = ResultCache(store, settings, accept_truncated=False)
    async with cache, cache.lease(AUDIO, [ONE]) as lease:
        assert lease.found is None


async def test_a_dead_redis_is_asked_now_and_then(
    store: Database, server: service.Server, writing: Writing, counted: Counted
) -> None:
    before = errors()
    async with caching(store, server.url) as cache:
        async with cache.lease("01" * 32, [ONE]) as lease:
            lease.settle(heard(1, audio_sha256="01" * 32))
        server.kill()
        for n in range(2, 30):
            async with cache.lease(f"{n:02}" * 32, [ONE]) as lease:
                assert lease.found is None
                lease.settle(heard(n, audio_sha256=f"{n:02}" * 32))
        assert 1 <= errors() - before <= 10  # of 28 jobs
        assert counted() == {"none": 29}
        await server.start()
        await until_it_answers(cache, server)


async def until_it_answers(cache: ResultCache, server: service.Server) -> None:
    """Settle other recordings until Redis has one of them."""
    async with asyncio.timeout(30), server.client() as client:
        n = 0
        while await client.dbsize() == 0:
            n += 1
            audio = f"{n:064x}"
            async with cache.lease(audio, [ONE]) as lease:
                lease.settle(heard(n, audio_sha256=audio))
            await asyncio.sleep(0.1)


async def test_a_frozen_redis_costs_its_timeout_once(
    store: Database, server: service.Server, writing: Writing, sql: Connection, counted: Counted
) -> None:
    """Killed, it refuses; frozen, it takes connections and says nothing."""
    await write(writing, *(heard(n, audio_sha256=f"{n:02}" * 32) for n in range(1, 30)))
    before = errors()
    async with caching(store, server.url, redis_timeout_seconds=0.2) as cache:
        async with cache.lease("01" * 32, [ONE]) as lease:
            assert text_of(lease, 31).cached_from is not None
        server.freeze()
        for n in range(2, 30):
            async with cache.lease(f"{n:02}" * 32, [ONE]) as lease:
                assert text_of(lease, 31).cached_from is not None
        assert 1 <= errors() - before <= 10  # of 28 jobs
        assert counted() == {"postgres": 29}
        server.thaw()
        async with server.client() as client:
            await client.flushdb()
        await until_it_answers(cache, server)


async def test_answers_that_come_too_late_are_nobody_elses(store: Database, server: service.Server) -> None:
    """A reply to a look-up that was given up is not taken for that of the next."""
    audios = [f"{n:064x}" for n in range(40)]
    async with caching(store, server.url) as cache:
        for n, audio in enumerate(audios):
            async with cache.lease(audio, [ONE]) as lease:
                lease.settle(heard(n, f"text {n}", audio_sha256=audio))
    async with caching(store, server.url, redis_timeout_seconds=0.05) as cache:

        async def look(n: int) -> str | None:
            async with cache.lease(audios[n], [ONE]) as lease:
                return text_of(lease, 99).text if lease.found else None

        found: dict[int, str | None] = {}
        server.freeze()
        given_up = asyncio.gather(*map(look, range(10)))
        await asyncio.sleep(0.02)
        server.thaw()
        found.update(enumerate(await given_up))
        await asyncio.sleep(1.1)  # of the rest
        for n in range(10, 40):
            if n % 5 == 0:  # one that is cancelled with its question on the way
                doomed = asyncio.create_task(look(n))
                await asyncio.sleep(0.001)
                doomed.cancel()
                await asyncio.gather(doomed, return_exceptions=True)
            else:
                found[n] = await look(n)
    assert {n: text for n, text in found.items() if text not in (None, f"text {n}")} == {}
    assert sum(text is not None for n, text in found.items() if n >= 10) >= 20


async def test_killed_and_frozen_under_load_no_text_is_wrong(store: Database, server: service.Server) -> None:
    """Jobs of twenty recordings, some of them at once, in a daemon that never looks into its own memory twice."""
    made: list[str] = []

    async def run(cache: ResultCache, n: int) -> None:
        audio = f"{n % 20:064x}"
        async with cache.lease(audio, [ONE]) as lease:
            if lease.found is None:
                made.append(audio)
                await asyncio.sleep(0.005)
                lease.settle(heard(n, f"text of {audio}", audio_sha256=audio))
            else:
                assert text_of(lease, n).text == f"text of {audio}"

    async def trouble() -> None:
        for act in (server.freeze, server.thaw, server.kill):
            await asyncio.sleep(0.15)
            act()
        await server.start()

    async with asyncio.TaskGroup() as group:
        troubled = group.create_task(trouble())
        rounds = 0
        # On a slow machine few rounds fit into the trouble, and Redis seldom answers in time: until it has helped.
        while not troubled.done() or rounds < 5 or len(made) == 20 * rounds:
            rounds += 1
            async with caching(store, server.url, redis_timeout_seconds=0.05) as cache:
                await asyncio.gather(*(run(cache, n) for n in range(100)))
    assert len(made) < 20 * rounds


async def test_a_redis_that_was_never_there(store: Database, writing: Writing, counted: Counted) -> None:
    await write(writing, heard(1))
    port = free_ports(1)[0]
    async with caching(store, f"redis://127.0.0.1:{port}") as cache, cache.lease(AUDIO, [ONE]) as lease:
        assert lease.found is not None
    assert counted() == {"postgres": 1}


async def test_no_redis_at_all_but_something_else(store: Database, counted: Counted) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(other, "127.0.0.1", 0)
    async with server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with caching(store, url) as cache, cache.lease(AUDIO, [ONE]) as lease:
            assert lease.found is None
    assert counted() == {"none": 1}


async def test_a_wrong_password_is_no_end(
    store: Database, server: service.Server, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = errors()
    url = f"redis://:hunter2@127.0.0.1:{server.port}"
    async with caching(store, url) as cache, cache.lease(AUDIO, [ONE]) as lease:
        assert lease.found is None
    assert errors() > before
    written = caplog.text + "".join(capsys.readouterr())  # structlog may write by itself, or by logging
    assert "Redis" in written
    assert "hunter2" not in written


@pytest.mark.parametrize("url", ["http://:hunter2@127.0.0.1", "redis://:hunter2@127.0.0.1:port/0", "hunter2"])
async def test_a_url_that_is_none_is_told_without_the_password(store: Database, url: str) -> None:
    with pytest.raises(ConfigError, match=r"^cache.redis_url = .*: write redis://") as caught:
        async with caching(store, url):
            pass
    assert "hunter2" not in str(caught.value)


async def test_a_missing_package_is_told(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "v2td.results.redis_level", raising=False)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ConfigError, match=r"pip install 'v2td\[redis\]'"):
        async with caching(store, "redis://127.0.0.1"):
            pass
