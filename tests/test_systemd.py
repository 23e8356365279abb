import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from v2td import systemd


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[socket.socket, dict[str, str]]]:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(address))
        listening.settimeout(5)
        yield listening, {"NOTIFY_SOCKET": str(address)}


def test_states_reach_the_manager_in_one_message(manager: tuple[socket.socket, dict[str, str]]) -> None:
    listening, environ = manager
    assert systemd.notify("READY=1", systemd.status("2 slots"), environ=environ)
    assert listening.recv(4096) == b"READY=1\nSTATUS=2 slots"


def test_a_manager_that_does_not_read_holds_nothing_up(manager: tuple[socket.socket, dict[str, str]]) -> None:
    _datagrams, environ = manager
    taken = [systemd.notify("WATCHDOG=1", environ=environ) for _ in range(2000)]  # more than any queue takes
    assert taken[0] is True
    assert taken[-1] is False


def test_an_abstract_socket_is_reached(tmp_path: Path) -> None:
    name = f"v2td-test-{os.getpid()}-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name)
        listening.settimeout(5)
        assert systemd.notify("WATCHDOG=1", environ={"NOTIFY_SOCKET": "@" + name})
        assert listening.recv(4096) == b"WATCHDOG=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}])
def test_without_a_manager_nothing_is_said(environ: dict[str, str]) -> None:
    assert not systemd.notify("READY=1", environ=environ)


def test_a_manager_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        systemd.notify("READY=1", environ={"NOTIFY_SOCKET": str(tmp_path / "nobody")})


def test_a_status_is_one_short_line() -> None:
    assert systemd.status("a\nREADY=1\n  b") == "STATUS=a READY=1 b"
    assert len(systemd.status("x" * 5000)) == len("STATUS=") + 200


def test_more_time_is_asked_for_in_microseconds() -> None:
    assert systemd.extend_timeout(15) == "EXTEND_TIMEOUT_USEC=15000000"


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_the_watchdog_is_fed_only_when_this_process_is_asked(environ: dict[str, str], seconds: float | None) -> None:
    assert systemd.watchdog_seconds(environ) == seconds
