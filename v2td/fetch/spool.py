"""The folder where downloads wait: one for each process, and gone with it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Self

from v2td.errors import ErrorClass, JobError, NoRoomError, ServiceError
from v2td.scratch import NO_ROOM, Remover, can_never_fit, scratch_folder

_PREFIX = "v2td-spool-"
_BUFFER_BYTES = 1024 * 1024


def default_spool_dir() -> Path:
    """Return systemd's cache folder of the service, else the temporary folder."""
    cache = os.environ.get("CACHE_DIRECTORY", "").partition(":")[0]
    return Path(cache or tempfile.gettempdir())


class Incoming:
    """A file being received: bytes go in, size and digest are kept."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self.path = path
        self.size_bytes = 0
        self._file = file
        self._digest = hashlib.sha256()
        self.digested_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Append; raises NoRoomError when the disk does not take it for now, ServiceError when it is broken."""
        with _disk_errors(self.path.parent, self.size_bytes):
            rest = memoryview(chunk)
            while rest:  # a full disk takes a part first
                rest = rest[self._file.write(rest) :]
        self._digest.update(chunk)
        self.size_bytes += len(chunk)

    def write_at(self, chunk: bytes, position: int, *, digest: bool) -> None:
        """Write where a chunk belongs, for parts that come in any order; raises like `write`.

        With `digest` it is hashed, too: only what begins at `digested_bytes`, and while no thread is in `digest_up_to`.
        """
        with _disk_errors(self.path.parent, self.size_bytes):
            rest = memoryview(chunk)
            while rest:
                written = os.pwrite(self._file.fileno(), rest, position)
                rest, position = rest[written:], position + written
        self.size_bytes += len(chunk)
        if digest:
            self._digest.update(chunk)
            self.digested_bytes += len(chunk)

    def digest_up_to(self, end: int) -> None:
        """Hash what was written behind `digested_bytes`; for a thread, one at a time.

        It opens the file for itself, because a thread cannot be cancelled and may outlive ours.
        """
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        with _disk_errors(self.path.parent), self.path.open("rb", buffering=0) as file:
            file.seek(self.digested_bytes)
            while self.digested_bytes < end:
                count = file.readinto(buffer[: end - self.digested_bytes]) or 0
                if count == 0:
                    raise OSError(errno.EIO, "the file is shorter than what was written to it")
                self._digest.update(buffer[:count])
                self.digested_bytes += count

    @property
    def sha256(self) -> str:
        """Hex digest of what was written so far; of what came by `write_at`, the first `digested_bytes`."""
        return self._digest.hexdigest()


class Spool:
    """A folder of our own (0700) below `base`, with names that we choose; use as a context manager.

    Several daemons may share `base`: each holds a lock on its folder, and at start each removes the folders that
    nobody holds, which dead ones left behind. Raises ServiceError when the folder cannot be made.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._stack = contextlib.ExitStack()
        self._remover = Remover()
        self.folder = base

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack, _disk_errors(self._base):
            self.folder = stack.enter_context(scratch_folder(self._base, _PREFIX))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """Yield a new empty file (0600) that stays when the block succeeds; an error or a cancellation deletes it."""
        with _disk_errors(self.folder):
            descriptor, name = tempfile.mkstemp(dir=self.folder)
        path = Path(name)
        try:
            with FileIO(descriptor, "w") as file:  # unbuffered: chunks are large, and closing cannot fail late
                yield Incoming(path, file)
        except BaseException:
            self.discard(path)
            raise

    def discard(self, path: Path) -> None:
        """Delete a file of this folder, later if that is not possible now; nothing when it is gone already."""
        self._remover.remove(path)


@contextlib.contextmanager
def _disk_errors(folder: Path, size_bytes: int = 0) -> Iterator[None]:
    """Say what a failure of the disk means to a file that has `size_bytes` there already."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            if can_never_fit(folder, size_bytes):
                raise JobError(ErrorClass.TOO_LARGE, "it does not fit into fetch.spool_dir") from error
            raise NoRoomError(
                "spool", f"{folder}: {error.strerror}", "make room, or set fetch.spool_dir to a larger disk"
            ) from error
        raise ServiceError(
            "spool", f"{folder}: {error.strerror or error}", "set fetch.spool_dir to a local folder with room"
        ) from error
