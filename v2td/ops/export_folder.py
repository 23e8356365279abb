"""The folder of an export: files appear whole or not at all, and say by their time which revision they hold.

A file's modification time is its transcription's `created_at`, to the microsecond. So an export that goes on knows
what is there, a revision that came since is written anew, and nothing but the files has to be right.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from v2td.errors import ServiceError

MANIFEST = ".v2td-export.json"  # by which options the files were written; locked while an export writes
WRITERS = 16
UNFINISHED = ".v2td-"  # before the name of a file that is being written

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class File:
    """A file to write: its name in the folder, its content, and when what it holds was transcribed."""

    name: str
    content: str
    created_at: datetime


class Folder:
    """A folder that one export writes; made by `open_folder`. Its methods block on the disk and raise ServiceError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def holds(self, name: str, created_at: datetime) -> bool:
        """Tell whether the file is there, of the same revision."""
        try:
            return (self.path / name).lstat().st_mtime_ns // 1_000 == _microseconds(created_at)
        except FileNotFoundError:
            return False

    def write(self, files: Sequence[File]) -> int:
        """Write files; return their bytes. On the disk before they have their names, so none is ever half there."""
        unfinished = [
            (self.path / f"{UNFINISHED}{number}.part", self.path / file.name) for number, file in enumerate(files)
        ]
        try:
            # At once: the disk waits for all of them together, not for one after the other.
            with ThreadPoolExecutor(WRITERS) as writers:
                written = sum(writers.map(_write, (part for part, _ in unfinished), files))
            while unfinished:
                unfinished[-1][0].rename(unfinished[-1][1])
                unfinished.pop()
            _sync(self.path)
        except OSError as error:
            raise _trouble(self.path, error) from error
        finally:
            for part, _ in unfinished:
                part.unlink(missing_ok=True)
        return written


@contextmanager
def open_folder(path: Path, options: Mapping[str, Any], *, force: bool) -> Iterator[Folder]:
    """Make the folder where needed and lock it; raises ServiceError.

    Where it holds an export by other options, only `force` goes on.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with os.fdopen(_opened(path / MANIFEST), "a+b") as manifest:
            fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
            manifest.seek(0)
            _same(path, manifest.read(), options, force=force)
            manifest.truncate(0)
            manifest.write(json.dumps(options).encode() + b"\n")
            manifest.flush()
            for part in path.glob(f"{UNFINISHED}*.part"):  # of an export that was killed
                part.unlink(missing_ok=True)
            yield Folder(path)
    except BlockingIOError:
        raise ServiceError(
            "export", f"another export writes to {path}", "wait for it, or name another folder"
        ) from None
    except OSError as error:
        raise _trouble(path, error) from error


def _opened(path: Path) -> int:
    """Open a file to be read and appended to, but not another one through a link that somebody laid there."""
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _same(path: Path, before: bytes, options: Mapping[str, Any], *, force: bool) -> None:
    with suppress(ValueError):  # not of an export, or of one that a power cut ended: it says nothing
        earlier = json.loads(before)
        if isinstance(earlier, dict) and earlier != options and not force:
            others = ", ".join(f"{key} {earlier.get(key)}" for key in options if earlier.get(key) != options[key])
            raise ServiceError(
                "export",
                f"{path} holds an export by other options ({others})",
                "say the same, --force, or another folder",
            )


def _write(part: Path, file: File) -> int:
    part.unlink(missing_ok=True)
    with part.open("xb") as out:  # never through a link that somebody laid there
        written = out.write(file.content.encode())
        out.flush()
        nanoseconds = _microseconds(file.created_at) * 1_000
        os.utime(out.fileno(), ns=(nanoseconds, nanoseconds))
        os.fsync(out.fileno())
    return written


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _microseconds(moment: datetime) -> int:
    since = moment - _EPOCH  # in whole numbers: a float of today's seconds has no microseconds to spare
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _trouble(path: Path, error: OSError) -> ServiceError:
    return ServiceError(
        "export", f"{path}: {error.strerror or error}", "make room or name another --output-dir, and go on"
    )
