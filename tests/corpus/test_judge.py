"""The corpus sees what is wrong: a judge that approves of everything would approve of the daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.corpus import flac
from tests.corpus.case import Case, fate
from tests.corpus.runner import Got, judge, log_problems
from tests.corpus.web import hostile_web, trap
from tests.speech.test_demux import heard
from v2td.jobs import SAMPLE_RATE

HEARD: dict[str, Any] = {"id": "1", "created": 10.0, "text": "words", "truncated": False}
FAILED: dict[str, Any] = {"id": "1", "created": 10.0, "error_class": "not_audio", "reason": "no", "attempts": 1}


@pytest.mark.parametrize(
    ("row", "expected", "problem"),
    [
        (HEARD, "OK", None),
        (HEARD | {"truncated": True}, "OK", "OK truncated instead of OK"),
        (HEARD, "OK truncated*", "OK instead of OK truncated*"),
        (HEARD | {"text": ""}, "OK", "OK empty instead of OK"),
        (HEARD, "P *", "OK instead of P *"),
        (FAILED, "P not_audio", None),
        (FAILED | {"attempts": 2}, "P *", "T not_audio instead of P *"),
        (FAILED | {"error_class": "poison"}, "OK* | P *", "P poison instead of OK* | P *"),
        (FAILED | {"error_class": "decoder_crash"}, "P *", "P decoder_crash instead of P *"),
        (FAILED | {"error_class": "decoder_crash"}, "P decoder_crash", None),
        (FAILED | {"id": "2"}, "P *", "no dead letter"),
        (FAILED | {"reason": "\x9b2J"}, "P *", "its reason is not printable"),
    ],
)
def test_a_wrong_fate_is_a_problem(row: dict[str, Any], expected: str, problem: str | None) -> None:
    got = Got(Case("x", expected, b""))
    judge(got, [row], 8.0, frozenset({"1"}))
    assert (got.problem, got.seconds, got.fates) == (problem, 2.0, [fate(row)])


def test_no_outcome_and_too_many_are_problems() -> None:
    for rows in ([], [HEARD, HEARD]):
        got = Got(Case("x", "OK", b""))
        judge(got, rows, 8.0, frozenset())
        assert got.problem == f"{len(rows)} outcomes instead of 1"


def test_too_much_memory_and_what_a_check_says_are_problems() -> None:
    got = Got(Case("x", "OK", b"", max_rss_bytes=1_000_000, check=lambda _: "it is odd"), rss_bytes=2_000_000)
    judge(got, [HEARD], 8.0, frozenset())
    assert got.problem == "it is odd; 2 MB instead of 1 at most"


@pytest.mark.parametrize(
    "line", ['{"a": "canary"}', "Traceback", '{"a": "\x1b[2J"}', '{"a": "\u202e"}', '{"a": "\x9b"}']
)
def test_a_log_that_an_input_got_into_is_a_problem(tmp_path: Path, line: str) -> None:
    log = tmp_path / "log"
    log.write_text('{"event": "ready"}\n')
    assert log_problems(log) == []
    log.write_text(f'{{"event": "ready"}}\n{line}\n')
    assert log_problems(log)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
async def test_the_trap_sees_who_comes(host: str) -> None:
    async with hostile_web("http://127.0.0.1:9") as web, trap() as found:
        assert web.url.startswith("http://127.0.0.9:")
        reader, writer = await asyncio.open_connection(host, found.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()
        assert found.reached == [repr(b"GET / HTTP/1.1\r\n\r\n")]


def test_made_flac_is_flac(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(flac.silence(60))
    samples, damage = heard(path)
    assert samples / SAMPLE_RATE == pytest.approx(65.5, abs=0.1)  # whole blocks
    assert not damage.found
