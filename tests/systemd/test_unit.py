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
TEMPLATE = ROOT / "systemd" / "v2td@.service"
SLICE = ROOT / "systemd" / "v2td.slice"
GPU = ROOT / "systemd" / "gpu.conf"
MAX_EXPOSURE = 1.5  # redis 9.4, postgresql 9.6 by the same measure
MAX_EXPOSURE_GPU = 2.0


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.fail("systemd-analyze is missing; install it with: apt-get install systemd", pytrace=False)
    return subprocess.run(
        ["systemd-analyze", *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )


@pytest.fixture(params=[UNIT, TEMPLATE], ids=["service", "template"])
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit with an executable that exists on this machine, since verify looks for it, and its slice beside it."""
    here = tmp_path / str(request.param.name)
    v2td = Path(sys.executable).with_name("v2td")
    assert v2td.exists()
    here.write_text(request.param.read_text().replace("/opt/v2td/venv/bin/v2td", str(v2td)))
    (tmp_path / SLICE.name).write_text(SLICE.read_text())
    return here


def exposure(*arguments: str, at_most: float) -> float:
    """What systemd makes of a unit's hardening, from 0 to 10, less being better; fails where it is above a limit."""
    judged = analyze("security", "--offline=true", "--no-pager", f"--threshold={at_most * 10:.0f}", *arguments)
    found = re.search(r"Overall exposure level .*: ([0-9.]+)", judged.stdout)
    assert found is not None, judged.stdout
    print(f"exposure {found[1]}")
    assert judged.returncode == 0, judged.stdout
    return float(found[1])


def value(key: str) -> str:
    """The only value of a directive."""
    (found,) = re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)
    return str(found)


def test_systemd_understands_the_units(unit: Path) -> None:
    verified = analyze("verify", "--recursive-errors=no", str(unit), str(unit.with_name(SLICE.name)))
    assert (verified.returncode, verified.stdout) == (0, "")


@pytest.mark.parametrize("name", ["the unit", "the slice"])
def test_verify_would_notice_a_mistake(unit: Path, name: str) -> None:
    wrong = unit if name == "the unit" else unit.with_name(SLICE.name)
    key = "WatchdogSec" if name == "the unit" else "CPUWeight"
    wrong.write_text(wrong.read_text().replace(f"\n{key}=", f"\n{key}onds="))
    assert f"{key}onds" in analyze("verify", "--recursive-errors=no", str(unit), str(wrong)).stdout


def test_exposure(unit: Path) -> None:
    assert exposure(str(unit), at_most=MAX_EXPOSURE) <= MAX_EXPOSURE


def test_exposure_with_a_gpu(tmp_path: Path) -> None:
    """The drop-in opens NVIDIA's devices and nothing else."""
    folder = tmp_path / "etc/systemd/system"
    drop_ins = folder / "v2td.service.d"
    drop_ins.mkdir(parents=True)
    (folder / UNIT.name).write_text(UNIT.read_text())
    (folder / SLICE.name).write_text(SLICE.read_text())
    without = exposure(f"--root={tmp_path}", "v2td.service", at_most=MAX_EXPOSURE)
    (drop_ins / GPU.name).write_text(GPU.read_text())
    with_gpu = exposure(f"--root={tmp_path}", "v2td.service", at_most=MAX_EXPOSURE_GPU)
    assert without < with_gpu <= MAX_EXPOSURE_GPU


def directives(path: Path) -> list[str]:
    """All that a unit says, without its comments."""
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def test_the_template_is_the_service_but_for_what_tells_instances_apart() -> None:
    service, template = directives(UNIT), directives(TEMPLATE)
    assert {line for line in service if line not in template} == {
        "Description=v2td, speech to text from Kafka to Postgres",
        "CacheDirectory=v2td",
        "RuntimeDirectory=v2td",
    }
    assert {line for line in template if line not in service} == {
        "Description=v2td, speech to text from Kafka to Postgres, instance %i",
        "CacheDirectory=v2td/%i",
        "RuntimeDirectory=v2td/%i",
        "Environment=V2TD_ADMIN__PORT=946%i",
        "EnvironmentFile=-/etc/v2td/%i.env",
    }
    order = [line for line in service if line in template]
    assert order == [line for line in template if line in service]


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
