"""The unit, as systemd itself reads it, and its times against the settings that they belong to."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from v2td.config import Settings

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd" / "v2td.service"
MAX_EXPOSURE = 2.0  # redis 9.4, postgresql 9.6 by the same measure


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.fail("systemd-analyze is missing; install it with: apt-get install systemd", pytrace=False)
    return subprocess.run(
        ["systemd-analyze", *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with an executable that exists on this machine, since verify looks for it."""
    here = tmp_path / "v2td.service"
    v2td = Path(sys.executable).with_name("v2td")
    assert v2td.exists()
    here.write_text(UNIT.read_text().replace("/opt/v2td/venv/bin/v2td", str(v2td)))
    return here


def value(key: str) -> str:
    """The only value of a directive."""
    (found,) = re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)
    return str(found)


def test_systemd_understands_the_unit(unit: Path) -> None:
    verified = analyze("verify", "--recursive-errors=no", str(unit))
    assert (verified.returncode, verified.stdout) == (0, "")


def test_verify_would_notice_a_mistake(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchdogSeconds="))
    assert "WatchdogSeconds" in analyze("verify", "--recursive-errors=no", str(unit)).stdout


def test_exposure(unit: Path) -> None:
    threshold = f"--threshold={MAX_EXPOSURE * 10:.0f}"
    judged = analyze("security", "--offline=true", "--no-pager", threshold, str(unit))
    exposure = re.search(r"Overall exposure level .*: ([0-9.]+)", judged.stdout)
    assert exposure is not None, judged.stdout
    print(f"exposure {exposure[1]}")
    assert judged.returncode == 0, judged.stdout
    assert float(exposure[1]) <= MAX_EXPOSURE


def test_the_manager_waits_for_a_whole_shutdown() -> None:
    settings = Settings()
    drain = settings.pipeline.drain_seconds
    close = settings.kafka.commit_timeout_seconds + settings.pipeline.stop_seconds
    assert int(value("TimeoutStopSec")) > drain + close


def test_the_manager_waits_for_the_model() -> None:
    assert int(value("TimeoutStartSec")) > Settings().engine.load_seconds


def test_the_watchdog_outlasts_what_counts_as_a_stall() -> None:
    from v2td.duties import STALL_SECONDS

    assert int(value("WatchdogSec")) > STALL_SECONDS


def test_a_long_outage_is_no_reason_to_give_up() -> None:
    assert value("Restart") == "always"
    assert value("StartLimitIntervalSec") == "0"


@pytest.mark.parametrize(
    "call", ["sched_setaffinity", "setpriority", "mbind", "set_mempolicy", "landlock_restrict_self"]
)
def test_what_the_children_need_is_allowed(call: str) -> None:
    """Slots are pinned, decoders niced, and a process may lock itself in."""
    lists = re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert lists[0] == "@system-service"
    allowed = {name for each in lists if not each.startswith("~") for name in syscalls(each)}
    denied = {name for each in lists if each.startswith("~") for name in syscalls(each[1:])}
    named = set(" ".join(lists).split())  # what is named by itself comes last, and wins
    assert call in allowed
    assert call not in denied or call in named


def syscalls(words: str) -> set[str]:
    """Resolve systemd's sets of system calls."""
    found: set[str] = set()
    for word in words.split():
        if word.startswith("@"):
            lines = analyze("syscall-filter", word).stdout.splitlines()
            names = {line.strip() for line in lines[1:] if line.strip() and not line.strip().startswith("#")}
            found |= {each for name in names for each in (syscalls(name) if name.startswith("@") else {name})}
        else:
            found.add(word)
    return found
