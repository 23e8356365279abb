import asyncio
import json
from typing import Any

import pytest

from tests.admin.serving import BEARER, ECHO, EXPOSED, TOKEN, Daemon, port_of, raw, rejected, served
from v2td.admin.answers import HEADERS
from v2td.admin.routes import Access, Route

PROBES = ("/livez", "/readyz")
STATE = ("/metrics", "/status", "/openapi.json")


@pytest.mark.parametrize("path", [*PROBES, *STATE])
async def test_this_machine_needs_no_token_to_look(daemon: Daemon, path: str) -> None:
    async with served(daemon) as session, session.get(path) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("path", STATE)
async def test_other_machines_need_it(daemon: Daemon, path: str) -> None:
    before = rejected("token")
    async with served(daemon, **EXPOSED) as session:
        async with session.get(path) as answer:
            assert (answer.status, answer.content_type) == (401, "application/problem+json")
            assert answer.headers["WWW-Authenticate"] == 'Bearer realm="v2td"'
            assert await answer.json() == {
                "title": "Unauthorized",
                "status": 401,
                "detail": "send the token as a bearer",
            }
        async with session.get(path, headers=BEARER) as answer:
            assert answer.status == 200
        for probe in PROBES:
            async with session.get(probe) as answer:
                assert answer.status == 200
    assert rejected("token") == before + 1


@pytest.mark.parametrize(
    "given",
    [
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN.upper()}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer \udcff\udcfe",
        "Bearer ünïcode",
    ],
)
async def test_what_is_not_the_token_is_refused(daemon: Daemon, given: str) -> None:
    async with served(daemon, **EXPOSED) as session:
        header = b"Authorization: " + given.encode(errors="surrogateescape")
        answer = await raw(
            session, b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\n" + header + b"\r\nConnection: close\r\n\r\n"
        )
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"WWW-Authenticate: Bearer" in answer
    assert TOKEN.encode() not in answer


async def test_head_is_guarded_like_get(daemon: Daemon) -> None:
    async with served(daemon, **EXPOSED) as session:
        async with session.head("/status") as answer:
            assert answer.status == 401
        async with session.head("/status", headers=BEARER) as answer:
            assert answer.status == 200


async def test_the_scheme_has_no_case(daemon: Daemon) -> None:
    header = {"Authorization": f"bearer {TOKEN}"}
    async with served(daemon, **EXPOSED) as session, session.get("/status", headers=header) as answer:
        assert answer.status == 200


async def test_what_writes_needs_the_token_on_loopback_too(daemon: Daemon) -> None:
    async with served(daemon, token=TOKEN) as session:
        async with session.post("/echo", data=b"x") as answer:
            assert answer.status == 401
        async with session.post("/echo", data=b"x", headers=BEARER) as answer:
            assert (answer.status, await answer.json()) == (200, {"body": "x"})


async def test_what_writes_is_shut_while_there_is_no_token(daemon: Daemon) -> None:
    async with served(daemon) as session, session.post("/echo", data=b"x", headers=BEARER) as answer:
        assert answer.status == 403
        assert "admin.token" in (await answer.json())["detail"]


@pytest.mark.parametrize("access", [Access.PROBE, Access.STATE])
def test_nobody_can_add_what_writes_without_the_token(access: Access) -> None:
    with pytest.raises(ValueError, match="POST /x writes"):
        Route("POST", "/x", access, ECHO.answer, "", {})


async def asked(daemon: Daemon, host: str, version: str = "1.1", **settings: Any) -> int:
    """The status of an answer to a request with these Host lines."""
    async with served(daemon, **settings) as session:
        lines = f"GET /status HTTP/{version}\r\n{host}Connection: close\r\n\r\n".replace("PORT", str(port_of(session)))
        return int((await raw(session, lines.encode())).split()[1])


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:PORT", "localhost:PORT", "LocalHost", "[::1]:PORT", "[::1]", "10.1.2.3", "v2td.example"],
)
async def test_addresses_and_our_names_are_ours(daemon: Daemon, host: str) -> None:
    assert await asked(daemon, f"Host: {host}\r\n", allowed_hosts=("V2TD.example",)) == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:PORT", "localhost.evil.example", "127.0.0.1.evil.example", "0x7f000001", "127.1"],
)
async def test_a_name_that_is_not_ours_is_refused(daemon: Daemon, host: str) -> None:
    before = rejected("host")
    assert await asked(daemon, f"Host: {host}\r\n") == 421
    assert rejected("host") == before + 1


@pytest.mark.parametrize(
    "host",
    [
        "",
        "Host:\r\n",
        "Host: a b\r\n",
        "Host: user@127.0.0.1\r\n",
        "Host: 127.0.0.1\r\nHost: evil.example\r\n",
        "Host: [::1\r\n",
    ],
)
async def test_there_is_one_host(daemon: Daemon, host: str) -> None:
    assert await asked(daemon, host) == 400


async def test_http_1_0_may_have_none(daemon: Daemon) -> None:
    assert await asked(daemon, "", version="1.0") == 200


async def test_a_page_cannot_ask_the_probes_either(daemon: Daemon) -> None:
    async with served(daemon) as session, session.get("/livez", headers={"Host": "evil.example"}) as answer:
        assert answer.status == 421


@pytest.mark.parametrize("form", ["length", "chunked", "gzip"])
async def test_a_long_body_is_refused_before_anything_reads_it(daemon: Daemon, form: str) -> None:
    async def chunks() -> Any:
        for _ in range(20):
            yield b"x" * 100

    before = rejected("body")
    async with served(daemon, token=TOKEN, max_body_bytes=1000) as session:
        data = chunks() if form == "chunked" else b"x" * 1001
        headers = BEARER | ({"Content-Encoding": "gzip"} if form == "gzip" else {})
        async with session.post("/echo", data=data, headers=headers) as answer:
            assert answer.status == 413
            assert "admin.max_body_bytes" in (await answer.json())["detail"]
        async with session.post("/echo", data=b"x" * 1000, headers=BEARER) as answer:
            assert answer.status == 200
    assert rejected("body") == before + 1


async def test_a_body_is_taken_as_it_comes(daemon: Daemon) -> None:
    """What calls itself gzip is not unpacked: a bomb stays as small as it was sent."""
    async with served(daemon, token=TOKEN) as session:
        headers = {**BEARER, "Content-Encoding": "gzip"}
        async with session.post("/echo", data=b"not gzip", headers=headers) as answer:
            assert (answer.status, await answer.json()) == (200, {"body": "not gzip"})


async def test_a_body_where_none_belongs_is_limited_too(daemon: Daemon) -> None:
    async with served(daemon, max_body_bytes=10) as session, session.get("/livez", data=b"x" * 11) as answer:
        assert answer.status == 413


def echo_with(header: str) -> bytes:
    """The head of a request that has a body."""
    return f"POST /echo HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n{header}\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("header", "start"), [("Content-Length: 9", b"x"), ("Transfer-Encoding: chunked", b"3\r\nabc\r\n")]
)
async def test_a_slow_body_is_given_up(daemon: Daemon, header: str, start: bytes) -> None:
    before = rejected("slow")
    async with served(daemon, token=TOKEN, request_seconds=0.2) as session:
        answer = await raw(session, echo_with(header), start)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert rejected("slow") == before + 1


async def test_a_body_that_is_not_as_announced_is_refused(daemon: Daemon) -> None:
    before = rejected("malformed")
    async with served(daemon, token=TOKEN) as session:
        answer = await raw(session, echo_with("Transfer-Encoding: chunked") + b"zz\r\nno chunk\r\n0\r\n\r\n")
    assert answer.split()[1] == b"400"
    assert rejected("malformed") == before + 1


async def test_who_leaves_in_the_middle_makes_no_noise(daemon: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    before = rejected("malformed")
    async with served(daemon, token=TOKEN) as session:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port_of(session))
        writer.write(echo_with("Content-Length: 9") + b"x")
        await asyncio.sleep(0.1)
        writer.close()
        async with asyncio.timeout(5):
            while rejected("malformed") == before:
                await asyncio.sleep(0.01)
    assert not caplog.records


async def test_too_many_requests_wait_and_the_probes_do_not(daemon: Daemon) -> None:
    before = rejected("rate")
    async with served(daemon, requests_per_second=1) as session:
        statuses = []
        for _ in range(12):
            async with session.get("/status") as answer:
                statuses.append(answer.status)
        assert statuses == [200] * 10 + [429] * 2
        assert answer.headers["Retry-After"] == "1"
        for _ in range(30):
            async with session.get("/livez") as probe:
                assert probe.status == 200
        async with asyncio.timeout(5):
            while answer.status == 429:
                await asyncio.sleep(0.1)
                async with session.get("/status") as answer:
                    pass
    assert rejected("rate") >= before + 2


async def test_guessing_tokens_is_slow(daemon: Daemon) -> None:
    async with served(daemon, **EXPOSED, requests_per_second=1) as session:
        statuses = []
        for number in range(12):
            async with session.get("/status", headers={"Authorization": f"Bearer {number}"}) as answer:
                statuses.append(answer.status)
    assert statuses == [401] * 10 + [429] * 2


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/livez", 200),
        ("GET", "/status", 200),
        ("GET", "/none", 404),
        ("PUT", "/status", 405),
        ("POST", "/echo", 403),
    ],
)
async def test_a_browser_is_told_to_do_nothing_with_any_answer(
    daemon: Daemon, method: str, path: str, status: int
) -> None:
    async with served(daemon) as session, session.request(method, path) as answer:
        assert answer.status == status
        assert {name: answer.headers.getall(name) for name in HEADERS} == {
            name: [value] for name, value in HEADERS.items()
        }


async def test_a_method_that_is_not_there_is_told_which_are(daemon: Daemon) -> None:
    async with served(daemon) as session, session.delete("/status") as answer:
        assert (answer.status, set(answer.headers["Allow"].split(","))) == (405, {"GET", "HEAD"})
        assert await answer.json() == {
            "title": "Method Not Allowed",
            "status": 405,
            "detail": "405: Method Not Allowed",
        }


async def test_our_own_faults_are_for_the_log_alone(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.fault = RuntimeError("postgresql://user:canary@host")
    async with served(daemon) as session:
        async with session.get("/status") as answer:
            assert answer.status == 500
            assert "canary" not in await answer.text()
        daemon.fault = None
        async with session.get("/status") as answer:
            assert answer.status == 200
    assert "RuntimeError" in capsys.readouterr().out


async def test_a_problem_is_json(daemon: Daemon) -> None:
    async with served(daemon) as session:
        answer = await raw(session, b"GET /none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1]) == {
        "title": "Not Found",
        "status": 404,
        "detail": "404: Not Found",
    }
