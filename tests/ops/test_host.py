import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from v2td.cli.app import app
from v2td.config import Settings
from v2td.ops.host import OPEN_FILES, SYSCTL, Recommendation, recommendations

ROOT = Path(__file__).parents[2]
GOOD = {
    "proc/sys/net/core/rmem_max": "134217728\n",
    "proc/sys/net/core/wmem_max": "268435456\n",
    "proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t134217728\n",
    "proc/sys/net/ipv4/tcp_wmem": "4096\t16384\t134217728\n",
    "proc/sys/net/ipv4/tcp_congestion_control": "bbr\n",
    "proc/sys/vm/swappiness": "10\n",
    "proc/swaps": "Filename Type Size Used Priority\n/dev/vda2 partition 1 0 -2\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
}
MACHINE = {  # what does not come from files of a recorded machine
    "room for decoded audio",
    "open files",
}


def look(root: Path, files: dict[str, str]) -> dict[str, Recommendation]:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    settings = Settings.model_validate({"speech": {"pcm_dir": str(root)}})
    return {each.name: each for each in recommendations(settings, root / "proc", root / "sys")}


def test_a_machine_that_meets_them_all(tmp_path: Path) -> None:
    found = look(tmp_path, GOOD)
    assert [each.name for each in found.values() if not each.met and each.name not in MACHINE] == []
    assert set(SYSCTL) | {"CPU governor", "swap", "cgroup v2", "transparent huge pages"} | MACHINE == set(found)


@pytest.mark.parametrize(
    ("name", "file", "text", "told"),
    [
        ("net.core.rmem_max", "proc/sys/net/core/rmem_max", "212992\n", "212992"),
        ("net.ipv4.tcp_rmem", "proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n", "4096 131072 6291456"),
        ("net.ipv4.tcp_congestion_control", "proc/sys/net/ipv4/tcp_congestion_control", "cubic\n", "cubic"),
        (
            "CPU governor",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor",
            "powersave\n",
            "performance, powersave",
        ),
        ("swap", "proc/sys/vm/swappiness", "60\n", "vm.swappiness 60"),
        ("transparent huge pages", "sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n", "never"),
        ("cgroup v2", "sys/fs/cgroup/cgroup.controllers", "", "version 1"),
    ],
)
def test_what_is_missed_is_named_with_what_brings_it(
    tmp_path: Path, name: str, file: str, text: str, told: str
) -> None:
    found = look(tmp_path, GOOD | {file: text})
    assert [each.name for each in found.values() if not each.met and each.name not in MACHINE] == [name]
    assert found[name].found == told
    assert found[name].how


def test_a_machine_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    found = look(tmp_path, {})
    assert "CPU governor" not in found  # there is none in a virtual machine
    assert found["swap"].met
    assert {each.found for name, each in found.items() if name in SYSCTL} == {"unknown"}
    missing = Settings.model_validate({"speech": {"pcm_dir": str(tmp_path / "absent")}})
    (room,) = (each for each in recommendations(missing) if each.name == "room for decoded audio")
    assert not room.met


def test_the_file_says_the_same() -> None:
    lines = (ROOT / "systemd/99-v2td.conf").read_text().splitlines()
    given = dict(line.split(" = ") for line in lines if line and not line.startswith("#"))
    assert given == SYSCTL
    assert f"LimitNOFILE={OPEN_FILES}\n" in (ROOT / "systemd/v2td.service").read_text()


def test_command() -> None:
    done = CliRunner().invoke(app, ["check", "--host"])
    assert done.exit_code == 0
    assert "recommendations are met; none is needed to work" in done.stdout
    done = CliRunner().invoke(app, ["check", "--host", "--json"])
    assert {each["name"] for each in json.loads(done.stdout)["recommendations"]} >= set(SYSCTL)
