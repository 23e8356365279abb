"""The folder of kept recordings, as several processes use it and some of them die in it."""

import contextlib
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest

from v2td.fetch.kept import Kept, KeptFiles, Sums
from v2td.fetch.validators import Validator

VALIDATOR = Validator('"1"', "place")
SEED = 20261121

# Keeps and takes recordings until it is killed; every recording's content follows from its address.
WORKER = """
import hashlib, itertools, os, pathlib, random, sys
from v2td.fetch.kept import KeptFiles
from v2td.fetch.validators import Validator

folder, scratch, seed = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
choose = random.Random(seed)
scratch.mkdir()
with KeptFiles(folder, 200_000, 50_000, "first") as files:
    print("ready", flush=True)
    for number in itertools.count():
        address = f"address-{choose.randrange(40)}"
        content = hashlib.sha256(address.encode()).digest() * choose.randrange(1, 900)
        path, taken = scratch / f"{number}", scratch / f"{number}-taken"
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        files.keep(address, path, len(content), digest, Validator(digest, "place"))
        path.unlink()
        kept = files.take(address, taken, 50_000)
        if kept is not None:
            found = taken.read_bytes()
            taken.unlink()
            told = (kept.size_bytes, kept.sha256, kept.validator.etag)
            digest = hashlib.sha256(found).hexdigest()
            if told != (len(found), digest, digest):
                sys.exit(f"{address}: {told}")
        print(number, flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@contextlib.contextmanager
def opened(
    folder: Path, max_bytes: int = 1000, max_file_bytes: int = 1000, admission: Literal["first", "second"] = "first"
) -> Iterator[KeptFiles]:
    with KeptFiles(folder, max_bytes, max_file_bytes, admission) as files:
        yield files


class Scratch:
    """Files to keep, and free names to take them to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0

    def keep(self, files: KeptFiles, address: str, content: bytes, validator: Validator = VALIDATOR) -> Sums | None:
        self._made += 1
        path = self._folder / f"{self._made}"
        path.write_bytes(content)
        try:
            return files.keep(address, path, len(content), hashlib.sha256(content).hexdigest(), validator)
        finally:
            path.unlink()

    def take(self, files: KeptFiles, address: str, max_bytes: int = 1000) -> tuple[Kept, bytes] | None:
        self._made += 1
        to = self._folder / f"{self._made}"
        kept = files.take(address, to, max_bytes)
        assert to.exists() == (kept is not None)
        return None if kept is None else (kept, to.read_bytes())


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path)


def stored(folder: Path) -> list[Path]:
    return sorted((folder / "files").iterdir())


def test_what_is_kept_is_there_the_next_time(folder: Path, scratch: Scratch) -> None:
    content = b"RIFF" * 25
    with opened(folder) as files:
        assert scratch.keep(files, "a", content) == Sums(1, 100)
        assert scratch.take(files, "b") is None
    with opened(folder) as files:
        found = scratch.take(files, "a")
        assert found == (Kept(100, hashlib.sha256(content).hexdigest(), VALIDATOR), content)
        assert scratch.take(files, "a", max_bytes=99) is None
        assert scratch.keep(files, "a", b"newer", Validator('"2"', "there")) == Sums(1, 5)
        found = scratch.take(files, "a")
        assert found is not None
        assert (found[0].validator, found[1]) == (Validator('"2"', "there"), b"newer")
    assert len(stored(folder)) == 1
    assert (folder.stat().st_mode & 0o777, stored(folder)[0].stat().st_mode & 0o777) == (0o700, 0o400)


def test_the_least_recently_used_go(folder: Path, scratch: Scratch) -> None:
    with opened(folder, max_bytes=300) as files:
        for address in "abc":
            scratch.keep(files, address, bytes(100))
        assert scratch.take(files, "a")
        assert scratch.keep(files, "d", bytes(100)) == Sums(3, 300, evicted=1)
        assert [bool(scratch.take(files, address)) for address in "abcd"] == [True, False, True, True]
        assert scratch.keep(files, "e", bytes(250)) == Sums(1, 250, evicted=3)
        assert scratch.keep(files, "f", bytes(301)) is None  # more than all of it
        assert len(stored(folder)) == 1
    with opened(folder, max_bytes=100) as files:  # the bound was lowered
        assert scratch.keep(files, "g", bytes(10)) == Sums(1, 10, evicted=1)


def test_large_ones_are_not_kept(folder: Path, scratch: Scratch) -> None:
    with opened(folder, max_file_bytes=10) as files:
        assert scratch.keep(files, "a", bytes(11)) is None
        assert scratch.keep(files, "a", bytes(10)) == Sums(1, 10)


def test_the_second_request_counts(folder: Path, scratch: Scratch) -> None:
    with opened(folder, admission="second") as files:
        assert scratch.keep(files, "a", b"1") is None
        assert scratch.keep(files, "b", b"1") is None
    with opened(folder, admission="second") as files:  # also when the first came to another daemon
        assert scratch.keep(files, "a", b"22") == Sums(1, 2)
        assert scratch.keep(files, "a", b"333") == Sums(1, 3)


def test_what_was_asked_for_long_ago_is_forgotten(
    folder: Path, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("v2td.fetch.kept.MAX_ASKED", 3)
    with opened(folder, admission="second") as files:
        for address in "abcd":
            assert scratch.keep(files, address, b"1") is None
        assert scratch.keep(files, "a", b"1") is None
        assert scratch.keep(files, "d", b"1") == Sums(1, 1)


def test_a_job_keeps_what_it_has(folder: Path, scratch: Scratch, tmp_path: Path) -> None:
    with opened(folder, max_bytes=100) as files:
        scratch.keep(files, "a", b"a" * 100)
        assert files.take("a", tmp_path / "job", 1000)
        scratch.keep(files, "b", b"b" * 100)
        assert scratch.take(files, "a") is None
        assert files.clear() == Sums(1, 100)
    assert (tmp_path / "job").read_bytes() == b"a" * 100
    assert stored(folder) == []


def test_another_disk(folder: Path, tmp_path: Path) -> None:
    """Where links do not reach, files are copied, and a copy that fails leaves nothing."""
    elsewhere = Path("/dev/shm") / f"v2td-test-{os.getpid()}"  # another file system
    elsewhere.write_bytes(b"RIFF")
    assert elsewhere.stat().st_dev != tmp_path.stat().st_dev
    taken = elsewhere.with_suffix(".taken")
    try:
        with opened(folder) as files:
            assert files.keep("a", elsewhere, 4, hashlib.sha256(b"RIFF").hexdigest(), VALIDATOR)
            assert files.take("a", taken, 1000)
            assert taken.read_bytes() == b"RIFF"
            assert taken.stat().st_nlink == 1
            elsewhere.unlink()
            with pytest.raises(FileNotFoundError):
                files.keep("b", elsewhere, 4, "", VALIDATOR)
            assert len(stored(folder)) == 1
    finally:
        elsewhere.unlink(missing_ok=True)
        taken.unlink(missing_ok=True)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: os.truncate(path, 3)])
def test_a_damaged_file_is_dropped(damage: object, folder: Path, scratch: Scratch) -> None:
    with opened(folder) as files:
        scratch.keep(files, "a", b"RIFF")
        assert callable(damage)
        stored(folder)[0].chmod(0o600)
        damage(stored(folder)[0])
        assert scratch.take(files, "a") is None
        assert files.sums() == Sums(0, 0)
        assert stored(folder) == []


def test_after_the_machine_was_off(folder: Path, scratch: Scratch) -> None:
    """Sizes may be right where blocks were lost: what lay there before is compared once, and then believed."""
    with opened(folder) as files:
        scratch.keep(files, "whole", b"RIFF")
        scratch.keep(files, "lost", b"FFIR")
    with contextlib.closing(sqlite3.connect(folder / "index.db", isolation_level=None)) as index:
        index.execute("UPDATE kept SET boot = 'the one before'")
    for path in stored(folder):
        if path.read_bytes() == b"FFIR":
            path.chmod(0o600)
            path.write_bytes(bytes(4))
    with opened(folder) as files:
        assert scratch.take(files, "lost") is None
        assert scratch.take(files, "whole")
        assert files.sums() == Sums(1, 4)
    with contextlib.closing(sqlite3.connect(folder / "index.db")) as index:
        assert index.execute("SELECT boot FROM kept").fetchone()[0] != "the one before"


@pytest.mark.parametrize("content", [b"", b"this is no database" * 1000, None])
def test_an_index_of_no_use_begins_anew(content: bytes | None, folder: Path, scratch: Scratch) -> None:
    with opened(folder) as files:
        scratch.keep(files, "a", b"RIFF")
    if content is None:
        with contextlib.closing(sqlite3.connect(folder / "index.db")) as index:
            index.execute("PRAGMA user_version = 999")
    else:
        (folder / "index.db").write_bytes(content)
    with opened(folder) as files:
        assert scratch.take(files, "a") is None
        assert stored(folder) == []
        assert scratch.keep(files, "a", b"RIFF") == Sums(1, 4)


def test_strangers_are_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "precious").touch()
    with opened(folder):
        pass
    assert (folder / "precious").exists()


def test_many_threads(folder: Path, tmp_path: Path) -> None:
    """As the daemon has them."""

    def visit(number: int) -> None:
        address, path = f"{number % 7}", tmp_path / f"{number}"
        path.write_bytes(address.encode() * (10 + number % 7))
        files.keep(address, path, 10 + number % 7, hashlib.sha256(path.read_bytes()).hexdigest(), VALIDATOR)
        if kept := files.take(address, tmp_path / f"{number}-taken", 1000):
            assert (tmp_path / f"{number}-taken").read_bytes() == address.encode() * kept.size_bytes

    with opened(folder, max_bytes=60) as files, ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(300)))
        sums = files.sums()
        assert sums.size_bytes <= 60
        assert sums.size_bytes == sum(path.stat().st_size for path in stored(folder))


def test_daemons_that_share_a_folder_and_are_killed(folder: Path, tmp_path: Path) -> None:
    """Each checks what it takes; in the end nothing is left of those that died, and the bound holds."""

    def start(number: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKER, str(folder), str(tmp_path / f"scratch-{number}"), str(SEED + number)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process

    survivor = start(0)
    assert survivor.stdout
    for number in range(1, 7):
        victim = start(number)
        assert victim.stdout
        for _ in range(5):
            victim.stdout.readline()
        time.sleep(0.01 * number)  # anywhere in its work
        assert victim.poll() is None, victim.communicate()
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
    before = int(survivor.stdout.readline())
    for _ in range(100):
        survivor.stdout.readline()
    assert survivor.poll() is None, (before, survivor.communicate())
    survivor.kill()
    survivor.communicate()
    with opened(folder, max_bytes=200_000) as files:
        sums = files.sums()
        assert 0 < sums.size_bytes <= 200_000
        assert {path.name for path in folder.iterdir() if path.name.startswith("incoming-")} == {files._incoming.name}
        assert len(stored(folder)) == sums.files
        assert sum(path.stat().st_size for path in stored(folder)) == sums.size_bytes
