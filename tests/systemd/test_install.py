"""install.sh and uninstall.sh, into a folder of their own: they write nothing outside it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from v2td.config import load

ROOT = Path(__file__).parents[2]
INSTALL = ROOT / "systemd" / "install.sh"
UNINSTALL = ROOT / "systemd" / "uninstall.sh"
PREFIX = "/srv/speech-to-text"


def script(path: Path, *arguments: str, destdir: Path | None, user: int | None = None) -> tuple[int, str]:
    environment = {**os.environ, "PYTHON": sys.executable, "PIP_NO_COMPILE": "1"} | (
        {"DESTDIR": str(destdir)} if destdir else {}
    )
    done = subprocess.run(
        [str(path), *arguments],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        check=False,
        user=user,
        cwd="/",
    )
    return done.returncode, done.stdout


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of every file but the environment's."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "venv" not in path.parts
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_install_upgrade_uninstall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = script(INSTALL, PREFIX, destdir=tmp_path)
    assert code == 0, said
    venv = tmp_path / PREFIX[1:] / "venv"
    config = tmp_path / "etc/v2td/config.toml"
    units = tmp_path / "etc/systemd/system"

    # The command is there, names the interpreter where it will be, and the package in it works.
    first_lines = (venv / "bin/v2td").read_text().splitlines()[:2]  # the second where pip found the path too long
    assert any(f"{PREFIX}/venv/bin/python" in line for line in first_lines)
    version = subprocess.run(
        [venv / "bin/python", "-m", "v2td", "--version"], text=True, capture_output=True, cwd="/", check=False
    )
    assert version.stdout.startswith("v2td "), version.stderr
    assert {unit.name for unit in units.iterdir()} == {"v2td.service", "v2td@.service", "v2td.slice"}
    for unit in units.glob("*.service"):
        assert f"ExecStart={PREFIX}/venv/bin/v2td run --config /etc/v2td/config.toml" in unit.read_text()
    optional = tmp_path / PREFIX[1:] / "systemd"
    assert {each.name for each in optional.iterdir()} == {"gpu.conf", "cpus.conf", "99-v2td.conf"}
    assert all("/opt/v2td" not in each.read_text() for each in (*units.iterdir(), *optional.iterdir()))
    # The kernel's settings count for every program of the machine, so they come only when asked for.
    assert not (tmp_path / "etc/sysctl.d").exists()

    # The config may hold a password, and what is found there is found by the unit and by a person alike.
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert load(config, {}, {}).settings.engine.models_dir == Path("/var/lib/v2td/models")
    config.write_text(config.read_text().replace("localhost/v2td", "user:password@localhost/v2td"))
    assert load(config, {}, {}).settings.database.dsn.get_secret_value().startswith("postgresql://user:password@")

    # Again: what a person wrote stays, nothing changes, nothing is built anew, nothing is left over.
    before = contents(tmp_path)
    inode = venv.stat().st_ino
    code, said = script(INSTALL, PREFIX, destdir=tmp_path)
    assert code == 0, said
    assert contents(tmp_path) == before
    assert venv.stat().st_ino == inode
    assert "is up to date" in said
    assert {path.name for path in venv.parent.iterdir()} == {"venv", "doc", "systemd"}

    # An environment that was built in another way stays as it is, and the kernel's settings come when asked for.
    monkeypatch.setenv("VENV", "keep")
    monkeypatch.setenv("SYSCTL", "yes")
    (venv / ".built-of").write_text("something else")
    code, said = script(INSTALL, PREFIX, destdir=tmp_path)
    assert code == 0, said
    assert (venv / ".built-of").read_text() == "something else"
    assert (tmp_path / "etc/sysctl.d/99-v2td.conf").read_bytes() == (ROOT / "systemd/99-v2td.conf").read_bytes()

    code, said = script(UNINSTALL, PREFIX, destdir=tmp_path)
    assert code == 0, said
    assert list(contents(tmp_path)) == ["etc/v2td/config.toml"]
    assert not venv.parent.exists()
    code, said = script(UNINSTALL, "--purge", PREFIX, destdir=tmp_path)
    assert code == 0, said
    assert contents(tmp_path) == {}


def test_a_failing_build_leaves_everything_as_it_was(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / ".ci").mkdir(parents=True)
    (checkout / "systemd").mkdir()
    for path in (*ROOT.glob("systemd/*"), ROOT / ".ci/find-python"):
        copy = checkout / path.relative_to(ROOT)
        copy.write_bytes(path.read_bytes())
        copy.chmod(0o755)
    (checkout / ".ci/constraints.txt").write_text(f"--no-index\nhatchling==0 --hash=sha256:{'0' * 64}\n")
    destination = tmp_path / "root"
    running = destination / PREFIX[1:] / "venv"
    running.mkdir(parents=True)
    (running / "marker").write_text("the running one")
    code, said = script(checkout / "systemd/install.sh", PREFIX, destdir=destination)
    assert code != 0
    assert "hatchling==0" in said
    assert {str(path.relative_to(destination)) for path in destination.rglob("*") if path.is_file()} == {
        f"{PREFIX[1:]}/venv/marker"
    }


@pytest.mark.parametrize("prefix", ["opt/v2td", "/", "/with blank", "/with|bar"])
@pytest.mark.parametrize("path", [INSTALL, UNINSTALL], ids=["install", "uninstall"])
def test_a_bad_prefix_is_refused(path: Path, prefix: str, tmp_path: Path) -> None:
    code, said = script(path, prefix, destdir=tmp_path)
    assert code == 1
    assert "PREFIX must be an absolute path" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [INSTALL, UNINSTALL], ids=["install", "uninstall"])
def test_an_ordinary_user_is_told_to_use_sudo(path: Path, tmp_path: Path) -> None:
    copy = Path("/var/tmp") / f"{tmp_path.name}-{path.name}"  # where another user may read
    copy.write_bytes(path.read_bytes())
    copy.chmod(0o755)
    try:
        code, said = script(copy, destdir=None, user=65534 if os.geteuid() == 0 else None)
    finally:
        copy.unlink()
    assert code == 1
    assert "sudo" in said


def test_the_environment_is_made_of_hashed_versions() -> None:
    constraints = (ROOT / ".ci/constraints.txt").read_text()
    packages = [line for line in constraints.splitlines() if line and not line.startswith((" ", "#"))]
    assert packages
    assert all("==" in line for line in packages)
    assert constraints.count("--hash=sha256:") >= len(packages)
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert all(any(line.startswith(each.split(">")[0] + "==") for line in packages) for each in needed)


def test_an_environment_to_be_kept_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENV", "keep")
    code, said = script(INSTALL, PREFIX, destdir=tmp_path)
    assert code == 1
    assert f"there is no {tmp_path}{PREFIX}/venv/bin/v2td" in said
    assert list(contents(tmp_path)) == []
