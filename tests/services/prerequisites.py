"""What the machine itself must bring: looked for, installed where we may, otherwise named all at once."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.services import kafka, nginx, postgres
from tests.services.errors import ServiceError

_JAVA_MAJOR = 17
_GO_VERSION = (1, 24)
# What a missing program answers to the question for its version.
_NO_OUTPUT = ""


@dataclass(frozen=True, slots=True)
class Prerequisite:
    """A program: what it is for, how it is found, and Debian's package of it (None: Debian's own will not do)."""

    name: str
    purpose: str
    present: Callable[[], bool]
    package: str | None


def java_is_there() -> bool:
    """Whether a Java runtime of at least version 17 answers."""
    found = re.search(r'version "(\d+)', _output(kafka.java(), "-version"))
    return found is not None and int(found.group(1)) >= _JAVA_MAJOR


def go_is_there() -> bool:
    """Whether a Go toolchain of at least version 1.24 answers."""
    found = re.search(r"go(\d+)\.(\d+)", _output("go", "version"))
    return found is not None and (int(found.group(1)), int(found.group(2))) >= _GO_VERSION


def _program(name: str, purpose: str, package: str) -> Prerequisite:
    return Prerequisite(name, purpose, lambda: shutil.which(name) is not None, package)


JAVA = Prerequisite("Java 17 or newer", "runs Kafka", java_is_there, "default-jdk-headless")
MAVEN = _program("mvn", "brings Kafka's jars", "maven")
GO = Prerequisite("Go 1.24 or newer", "builds MinIO and versitygw", go_is_there, None)
CXX = (
    _program("cmake", "builds whisper.cpp's server", "cmake"),
    _program("g++", "builds whisper.cpp's server", "g++"),
    _program("make", "builds whisper.cpp's server", "make"),
)
POSTGRES = Prerequisite(
    "PostgreSQL's server (initdb, postgres)", "the database", lambda: postgres.find_binaries() is not None, "postgresql"
)
TESTS = (
    _program("espeak-ng", "speaks the tests' recordings", "espeak-ng"),
    _program("sox", "makes and bends the tests' recordings", "sox"),
    _program("ffmpeg", "encodes the tests' recordings", "ffmpeg"),
    _program("systemd-analyze", "judges the unit", "systemd"),
    _program("tmux", "is the terminal of `v2td top`", "tmux"),
    _program("redis-server", "holds the results of the tests' caches", "redis-server"),
    _program("promtool", "tests docs/prometheus, with the prometheus of the same package", "prometheus"),
    _program("chromium", "looks at the page", "chromium"),
    Prerequisite("nginx", "stands before the tests' S3 servers", lambda: nginx.find_program() is not None, "nginx"),
)


def ensure(needed: Iterable[Prerequisite]) -> None:
    """Sees to it that everything ``needed`` is there; as root on Debian it installs what apt has.

    Raises ServiceError naming each missing program and the command that brings it.
    """
    missing = [prerequisite for prerequisite in needed if not prerequisite.present()]
    packages = [prerequisite.package for prerequisite in missing if prerequisite.package]
    if packages and os.geteuid() == 0 and Path("/etc/debian_version").exists() and shutil.which("apt-get"):
        _apt_install(packages)
        missing = [prerequisite for prerequisite in missing if not prerequisite.present()]
    if missing:
        raise ServiceError(_message(missing))


def _apt_install(packages: list[str]) -> None:
    print(f"installing Debian packages: {' '.join(packages)}", flush=True)
    # RUNLEVEL 1: the package's own service is not started, which would listen beside the tests' server.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    for command in (["apt-get", "update", "-q"], install):
        # A failure shows in apt's own words; what is still missing afterwards is named by the caller.
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            env=environment,
            text=True,
        )
        if done.returncode:
            print(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout}", flush=True)


def _message(missing: list[Prerequisite]) -> str:
    lines = ["the test services need what this machine does not have:"]
    lines += [f"  {prerequisite.name} ({prerequisite.purpose})" for prerequisite in missing]
    packages = [prerequisite.package for prerequisite in missing if prerequisite.package]
    if packages:
        lines.append(f"on Debian: sudo apt-get install --no-install-recommends {' '.join(packages)}")
    if GO in missing:
        lines.append("Go: Debian 12's own is too old; take the release of the Go project, or on Debian 13: golang-go")
    return "\n".join(lines)


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, text=True, check=False)
    except OSError:
        return _NO_OUTPUT
    return done.stdout + done.stderr
