"""Where the bundled model's folder lies, and who builds it: once per user and size, whoever comes first."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from v2td.errors import ServiceError

Size = Literal["micro", "tiny", "base", "small"]
SIZES: tuple[Size, ...] = get_args(Size)
DATA = Path(__file__).parent / "data"
WEIGHTS, TOKENIZER = DATA / "weights.npz", DATA / "tokenizer.json"
UNFINISHED = ".building-"  # a killed builder leaves such a folder; the next one removes it


def model_folder(size: Size = "micro", compute: str = "int8") -> Path:
    """Return the CTranslate2 folder of the bundled model, for `faster_whisper.WhisperModel`; builds it if need be.

    "micro" is the model as trained; the other sizes say the same at the dimensions and cost of Whisper's tiny,
    base and small. `compute` is how the weights are stored: int8, float32 or another type of CTranslate2. Blocks
    for about a second (small: ten) the first time, while other processes that want a model wait for it. Raises
    ServiceError when no folder can be written.
    """

    def build(folder: Path) -> None:
        from v2td.bundled.expand import write_model  # noqa: PLC0415 (imports ctranslate2, not needed once it is built)

        write_model(folder, WEIGHTS, TOKENIZER, size, compute)

    return _cached(f"demo-{size}-{compute}-{_fingerprint()}", build)


def ggml_file(size: Size = "micro") -> Path:
    """Return the bundled model as a GGML file in float16, for whisper.cpp; otherwise as `model_folder`."""

    def build(folder: Path) -> None:
        from v2td.bundled.ggml import write_ggml  # noqa: PLC0415 (likewise)

        write_ggml(folder / f"demo-{size}.bin", WEIGHTS, TOKENIZER, size)

    return _cached(f"demo-{size}-ggml-{_fingerprint()}", build) / f"demo-{size}.bin"


def _cached(name: str, build: Callable[[Path], None]) -> Path:
    """Return a folder of the cache, which is built if it is not there."""
    models = _cache_folder() / "models"
    folder = models / name
    if folder.is_dir():
        return folder
    try:
        models.mkdir(parents=True, exist_ok=True)
        with _locked(models / ".lock"):
            if not folder.is_dir():
                _build(folder, build)
    except OSError as error:
        raise ServiceError(
            "build the bundled model", str(error), f"make room in {models}, or set XDG_CACHE_HOME to another folder"
        ) from error
    return folder


def _build(folder: Path, build: Callable[[Path], None]) -> None:
    for stale in folder.parent.glob(UNFINISHED + "*"):
        shutil.rmtree(stale, ignore_errors=True)
    unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder.parent))
    try:
        build(unfinished)
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file: between processes, and released by the kernel when its holder dies."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@cache
def _fingerprint() -> str:
    """Changes with the weights, the tokenizer and the recipes, so that an upgrade never meets an old folder."""
    digest = hashlib.sha256()
    for part in (WEIGHTS, TOKENIZER, *(Path(__file__).with_name(name) for name in ("expand.py", "ggml.py"))):
        digest.update(part.read_bytes())
    return digest.hexdigest()[:12]


def _cache_folder() -> Path:
    """The folder of systemd's CacheDirectory=, else the user's cache, else a private temporary folder."""
    if given := os.environ.get("CACHE_DIRECTORY"):
        folder = Path(given.split(":")[0])
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "v2td"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return _private_temporary_folder()
    return folder if os.access(folder, os.W_OK | os.X_OK) else _private_temporary_folder()


def _private_temporary_folder() -> Path:
    """A folder of a fixed name in the temporary folder that is ours alone, or ServiceError."""
    folder = Path(tempfile.gettempdir()) / f"v2td-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ServiceError(
            "find a folder for the bundled model",
            f"{folder} belongs to somebody else or is open to others",
            "set XDG_CACHE_HOME to a folder that you can write",
        )
    return folder
