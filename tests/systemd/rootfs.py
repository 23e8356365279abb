"""A small Debian with systemd in it, made once into the user's cache: what `container` boots.

It holds the distribution's packages and v2td's environment, both kept until what they are made of changes. v2td itself
is not taken from it: the checkout's is laid over it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.services.build import cache_folder
from tests.services.errors import ServiceError
from tests.services.prerequisites import Prerequisite, ensure
from tests.services.state import ROOT, locked

PACKAGES = "systemd,systemd-sysv,dbus,procps,python3,python3-venv"
SYSTEM_PYTHON = "/usr/bin/python3"  # the environment is built with it, and run by the same one inside
PREFIX = "/opt/v2td"
_STAMP = "rootfs.json"


def _has_venv() -> bool:
    command = [SYSTEM_PYTHON, "-c", "import ensurepip, venv"]
    return Path(SYSTEM_PYTHON).exists() and subprocess.run(command, capture_output=True, check=False).returncode == 0


NEEDED = (
    Prerequisite("systemd-nspawn", "boots it", lambda: shutil.which("systemd-nspawn") is not None, "systemd-container"),
    Prerequisite("debootstrap", "makes it", lambda: shutil.which("debootstrap") is not None, "debootstrap"),
    Prerequisite("the distribution's Python with venv", "builds v2td's environment", _has_venv, "python3-venv"),
)


def build() -> Path:
    """Return the root folder; makes what the cache does not hold yet, which takes two minutes.

    Raises ServiceError when it cannot be made here, saying what is missing.
    """
    if os.geteuid() != 0:
        raise ServiceError("a container with systemd takes root; run it with: sudo make test-systemd")
    ensure(NEEDED)
    codename = _release()["VERSION_CODENAME"]
    cache = cache_folder()
    root = cache / f"rootfs-{codename}"
    with locked(cache / "rootfs.lock"):
        if not _stamped(root / _STAMP, _system_stamp()):
            _make_system(root, codename)
        if not _stamped(root / "environment.json", _environment_stamp()):
            _make_environment(root)
    return root


def site_packages(root: Path) -> Path:
    """Return where v2td's packages lie inside, below `root`."""
    (found,) = (root / PREFIX[1:] / "venv/lib").glob("python3*/site-packages")
    return Path("/") / found.relative_to(root)


def _make_system(root: Path, codename: str) -> None:
    draft = root.with_name(f"draft-{root.name}")
    shutil.rmtree(draft, ignore_errors=True)
    print(f"making a small {codename} with systemd (once)", flush=True)
    _run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", codename, str(draft), _mirror(codename))
    shutil.rmtree(draft / "var/cache/apt/archives", ignore_errors=True)
    draft.chmod(0o755)
    (draft / _STAMP).write_text(json.dumps(_system_stamp()), encoding="utf-8")
    shutil.rmtree(root, ignore_errors=True)
    draft.rename(root)


def _make_environment(root: Path) -> None:
    print("installing v2td's environment into it (once for each version of the constraints)", flush=True)
    # What is in /etc stays out of it: the tests install that anew each time.
    staging = root.with_name(f"staging-{root.name}")
    shutil.rmtree(staging, ignore_errors=True)
    environment = {"DESTDIR": str(staging), "PYTHON": SYSTEM_PYTHON}
    _run(str(ROOT / "systemd/install.sh"), PREFIX, environment=environment)
    shutil.rmtree(root / PREFIX[1:], ignore_errors=True)
    (root / PREFIX[1:]).mkdir(parents=True)
    (staging / PREFIX[1:] / "venv").rename(root / PREFIX[1:] / "venv")
    shutil.rmtree(staging)
    (root / "environment.json").write_text(json.dumps(_environment_stamp()), encoding="utf-8")


def _system_stamp() -> dict[str, str]:
    return {"packages": PACKAGES}


def _environment_stamp() -> dict[str, str]:
    return {"constraints": hashlib.sha256((ROOT / ".ci/constraints.txt").read_bytes()).hexdigest()}


def _stamped(stamp: Path, expected: Mapping[str, str]) -> bool:
    try:
        return bool(json.loads(stamp.read_text(encoding="utf-8")) == expected)
    except (OSError, ValueError):
        return False


def _release() -> dict[str, str]:
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    found = {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}
    if "VERSION_CODENAME" not in found or shutil.which("apt-get") is None:
        raise ServiceError("a container with systemd is made by debootstrap: on Debian and what derives from it")
    return found


def _mirror(codename: str) -> str:
    """Return the mirror that this machine's own packages come from."""
    wanted = ["Identifier: Packages", "Component: main", f"Codename: {codename}"]
    found = _run("apt-get", "indextargets", "--format", "$(REPO_URI)", *wanted).split()
    if not found:
        raise ServiceError(f"no mirror of {codename} is known; run: apt-get update")
    return found[0]


def _run(*command: str, environment: Mapping[str, str] | None = None) -> str:
    """Return what it says on stdout; ServiceError with the end of what it said when it fails."""
    done = subprocess.run(
        command,
        text=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise ServiceError(f"{' '.join(command)} ended with status {done.returncode}:\n{said}")
    return done.stdout
