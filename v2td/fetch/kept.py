"""Recordings kept on disk, and the index that says what they are: for threads, blocks on the disk.

Several daemons share a folder, and any of them may be killed at any moment:

* Files have names drawn by lot and are never written to again. They appear whole, by a link or a rename, inside the
  transaction that adds their row; the rows that make room for them go in the same one, their files after it.
* What is handed out is a link of its own, so that nobody pulls a file from under a job. On another disk it is a copy.
* A file without a row is what a killed daemon left, and goes at the next start. A row whose file is gone or of another
  size is dropped when it is asked for, and so is one from before the machine's last start whose content is not what
  it was: files are not forced to the disk, and a loss of power may have taken some of it.

The library diskcache does most of this, but it unpickles what lies in its folder, and hands out no links.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from v2td.fetch.validators import Validator
from v2td.scratch import scratch_folder

FOLDER = "v2td-files"
MAX_ASKED = 100_000  # addresses remembered for the second request
BUSY_SECONDS = 2.0  # longest wait for another daemon's transaction; they take milliseconds

_VERSION = 1
_INDEX = ("index.db", "index.db-wal", "index.db-shm")
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})
_SCHEMA = f"""
CREATE TABLE kept (
    address TEXT PRIMARY KEY, file TEXT NOT NULL UNIQUE, size_bytes INTEGER NOT NULL, sha256 TEXT NOT NULL,
    etag TEXT NOT NULL, place TEXT NOT NULL, used INTEGER NOT NULL, boot TEXT NOT NULL
);
CREATE INDEX kept_used ON kept (used);
CREATE TABLE asked (address TEXT PRIMARY KEY, used INTEGER NOT NULL);
CREATE INDEX asked_used ON asked (used);
PRAGMA user_version = {_VERSION};
"""
# The least recently used that do not fit into so many bytes beside the others.
_BEYOND = """
SELECT file FROM (SELECT file, sum(size_bytes) OVER (ORDER BY used DESC) AS total FROM kept) WHERE total > ?
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """A recording that was taken out."""

    size_bytes: int
    sha256: str
    validator: Validator


@dataclass(frozen=True, slots=True)
class Sums:
    """What is kept, and how many went to make room for it."""

    files: int
    size_bytes: int
    evicted: int = 0


class KeptFiles:
    """The folder; use as a context manager. Entering raises OSError, the methods OSError and sqlite3.Error.

    `address` is a digest: neither the index nor any name in the folder says where a recording came from.
    """

    def __init__(
        self, folder: Path, max_bytes: int, max_file_bytes: int, admission: Literal["first", "second"]
    ) -> None:
        self._base = folder
        self._max_bytes = max_bytes
        self._max_file_bytes = min(max_file_bytes, max_bytes)
        self._admission = admission
        self._files = folder / "files"
        self._stack = contextlib.ExitStack()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._incoming = stack.enter_context(scratch_folder(self._base, "incoming-"))
            self._files.mkdir(mode=0o700, exist_ok=True)
            self._boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            with self._alone():
                try:
                    self._index = self._open()
                except sqlite3.DatabaseError:  # of another version, or damaged: what is kept can be had again
                    for name in _INDEX:
                        (self._base / name).unlink(missing_ok=True)
                    self._index = self._open()
            stack.callback(self._index.close)
            self._sweep()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._stack.close()

    def take(self, address: str, to: Path, max_bytes: int) -> Kept | None:
        """Put a recording of at most `max_bytes` at `to`, a name that is free; None, and nothing there, if none is."""
        with self._lock:
            found = self._index.execute(
                "SELECT file, size_bytes, sha256, etag, place, boot FROM kept WHERE address = ? AND size_bytes <= ?",
                (address, max_bytes),
            ).fetchone()
        if found is None:
            return None
        name, size_bytes, sha256, etag, place, boot = found
        if not self._hand_out(self._files / name, to, size_bytes, sha256 if boot != self._boot else None):
            to.unlink(missing_ok=True)
            with self._writing() as index:
                index.execute("DELETE FROM kept WHERE file = ?", (name,))
            (self._files / name).unlink(missing_ok=True)
            return None
        with self._writing() as index:
            index.execute(
                "UPDATE kept SET used = (SELECT max(used) + 1 FROM kept), boot = ? WHERE file = ?", (self._boot, name)
            )
        return Kept(size_bytes, sha256, Validator(etag, place))

    def keep(self, address: str, path: Path, size_bytes: int, sha256: str, validator: Validator) -> Sums | None:
        """Keep a file, which nobody may write to any more, in place of what was known of its address.

        Returns None when it is not kept: too large, or not asked for often enough.
        """
        if size_bytes > self._max_file_bytes or not self._admitted(address):
            return None
        name = secrets.token_hex(16)
        ready, kept = self._incoming / name, self._files / name
        try:
            _link_or_copy(path, ready)
            ready.chmod(0o400)
            with self._writing() as index:
                ready.rename(kept)
                gone = index.execute("SELECT file FROM kept WHERE address = ?", (address,)).fetchall()
                (last,) = index.execute("SELECT coalesce(max(used), 0) FROM kept").fetchone()
                row = (address, name, size_bytes, sha256, validator.etag, validator.place, last + 1, self._boot)
                index.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
                evicted = self._evict(index)
                files, total = index.execute("SELECT count(*), coalesce(sum(size_bytes), 0) FROM kept").fetchone()
        except BaseException:
            ready.unlink(missing_ok=True)
            kept.unlink(missing_ok=True)
            raise
        for (each,) in (*gone, *evicted):
            (self._files / each).unlink(missing_ok=True)
        return Sums(files, total, len(evicted))

    def sums(self) -> Sums:
        """Count what is kept."""
        with self._lock:
            files, total = self._index.execute("SELECT count(*), coalesce(sum(size_bytes), 0) FROM kept").fetchone()
        return Sums(files, total)

    def make_room(self, beside: Path) -> Sums | None:
        """Drop the half that was used least recently; None, and nothing done, if `beside` is on another disk.

        The files go first: a full disk may not take the change of the index before.
        """
        if beside.stat().st_dev != self._files.stat().st_dev:
            return None
        with self._lock:
            (total,) = self._index.execute("SELECT coalesce(sum(size_bytes), 0) FROM kept").fetchone()
            gone = self._index.execute(_BEYOND, (total // 2,)).fetchall()
        for (each,) in gone:
            (self._files / each).unlink(missing_ok=True)
        with self._writing() as index:
            index.executemany("DELETE FROM kept WHERE file = ?", gone)
        sums = self.sums()
        return Sums(sums.files, sums.size_bytes, len(gone))

    def clear(self) -> Sums:
        """Drop everything, also what was asked for once, and return what that was."""
        with self._writing() as index:
            files, total = index.execute("SELECT count(*), coalesce(sum(size_bytes), 0) FROM kept").fetchone()
            index.execute("DELETE FROM kept")
            index.execute("DELETE FROM asked")
        self._sweep()
        return Sums(files, total)

    def _admitted(self, address: str) -> bool:
        """Whether this is not the first request; note that there was one."""
        if self._admission == "first":
            return True
        with self._writing() as index:
            known = index.execute(
                "SELECT EXISTS (SELECT 1 FROM asked WHERE address = :address) "
                "OR EXISTS (SELECT 1 FROM kept WHERE address = :address)",
                {"address": address},
            ).fetchone()[0]
            index.execute(
                "INSERT OR REPLACE INTO asked VALUES (?, (SELECT coalesce(max(used), 0) + 1 FROM asked))", (address,)
            )
            index.execute("DELETE FROM asked WHERE used <= (SELECT max(used) FROM asked) - ?", (MAX_ASKED,))
        return bool(known)

    def _evict(self, index: sqlite3.Connection) -> list[tuple[str]]:
        """Delete the rows of the least recently used files that do not fit beside the others; return the files."""
        evicted = index.execute(_BEYOND, (self._max_bytes,)).fetchall()
        index.executemany("DELETE FROM kept WHERE file = ?", evicted)
        return evicted

    def _hand_out(self, kept: Path, to: Path, size_bytes: int, sha256: str | None) -> bool:
        """Put a file at `to`; say whether it is there and what its row says, by its digest where that is given."""
        try:
            _link_or_copy(kept, to)
        except FileNotFoundError:
            return False
        with to.open("rb") as file:
            if os.fstat(file.fileno()).st_size != size_bytes:
                return False
            return sha256 is None or hashlib.file_digest(file, "sha256").hexdigest() == sha256

    def _open(self) -> sqlite3.Connection:
        index = sqlite3.connect(
            self._base / _INDEX[0], timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            index.execute("PRAGMA journal_mode = WAL")
            index.execute("PRAGMA synchronous = NORMAL")  # a loss of power takes the last rows, and breaks nothing
            version = index.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                index.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT")
            elif version != _VERSION:
                raise sqlite3.DatabaseError(f"version {version}")
            index.execute("SELECT count(*) FROM kept").fetchone()
        except BaseException:
            index.close()
            raise
        return index

    def _sweep(self) -> None:
        """Delete the files that have no row. Nobody can be between the two while the index is locked."""
        with self._writing() as index:
            known = {name for (name,) in index.execute("SELECT file FROM kept")}
            for path in self._files.iterdir():
                if path.name not in known:
                    path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Hold the index, against our threads and other daemons; all that was done counts, or nothing."""
        with self._lock:
            self._index.execute("BEGIN IMMEDIATE")
            try:
                yield self._index
                self._index.execute("COMMIT")
            except BaseException:
                if self._index.in_transaction:
                    self._index.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other daemons from opening the index meanwhile."""
        with (self._base / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copyfile(source, target)
