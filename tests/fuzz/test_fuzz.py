"""A few seconds of fuzzing, everything that fuzzing has found, and proof that both would notice."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import targets
from tests.fuzz.campaign import fuzz
from tests.fuzz.findings import FINDINGS
from tests.fuzz.seeds import MAX_BYTES, seeds, words
from tests.fuzz.targets import TARGETS
from v2td.errors import ErrorClass, JobError
from v2td.fetch import guard, urls
from v2td.messages import notifications, record, request
from v2td.speech import demux

SECONDS = 5


@pytest.mark.parametrize("target", TARGETS)
def test_neither_seeds_nor_what_was_found_do_harm(target: str) -> None:
    for data in (*seeds(target), *FINDINGS[target].values()):
        TARGETS[target](data)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_found(target: str, tmp_path: Path) -> None:
    start = [*seeds(target), *FINDINGS[target].values()]
    report = fuzz(TARGETS[target], SECONDS, tmp_path, seeds=start, words=words(target), max_bytes=MAX_BYTES[target])
    assert report.finding is None, f"{report.finding!r}\n{report.output[-4000:]}"
    assert report.inputs > len(start)
    assert report.branches > 5


def planted(data: bytes) -> None:
    """Break on what no seed is, but coverage leads to."""
    with suppress(JobError):
        assert "localhost" not in str(urls.parse(data.decode("latin-1"), targets.OPEN))


@pytest.mark.slow
def test_a_planted_fault_is_found(tmp_path: Path) -> None:
    report = fuzz(planted, 20, tmp_path, seeds=[b"http://a/"], words='"localhost"\n', max_bytes=64)
    assert report.finding is not None
    assert b"localhost" in report.finding
    assert "AssertionError" in report.output


def _fail(*_: object, **__: object) -> None:
    raise RuntimeError


def _no_disk(*_: object, **__: object) -> None:
    raise OSError(5, "Input/output error")


DEFENCES: list[tuple[Any, str, Any, str, bytes]] = [
    (guard, "_DENIED", (), "address", b"\x7f\0\0\1"),
    (guard, "embedded", lambda ip: (), "address", bytes.fromhex("20027f000001") + bytes(10)),
    (urls, "_is_plain_host", lambda host, *, in_brackets: True, "url", b"http://127.1/"),
    (urls, "is_listed", lambda host, patterns: bool(patterns), "url", b"http://example.org/"),
    (urls, "_forbidden", lambda reason: JobError(ErrorClass.URL_FORBIDDEN, "\n"), "url", b"x"),
    (record, "_readable", lambda value, _: value, "message", b'{"id": "\\u0000"}'),
    (request, "get_close_matches", _fail, "message", b'{"audio_ur": 1}'),
    (notifications, "unquote_plus", lambda key, errors: key, "notification", b"bucket\0a b"),
    (demux, "_with_channels", lambda pcm, count: pcm[:, :0], "container", seeds("container")[0]),
    (demux, "_check_parameters", _fail, "container", seeds("container")[0]),
    (demux, "_open", _no_disk, "container", seeds("container")[0]),
]


@pytest.mark.parametrize("defence", DEFENCES, ids=lambda defence: defence[1].strip("_"))
def test_without_a_defence_a_target_breaks(
    defence: tuple[Any, str, Any, str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name, stand_in, target, data = defence
    TARGETS[target](data)
    monkeypatch.setattr(module, name, stand_in)
    with pytest.raises((AssertionError, RuntimeError)):
        TARGETS[target](data)


def test_the_command_names_its_targets() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "nothing"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 2
    assert "no target nothing" in answer.stderr
