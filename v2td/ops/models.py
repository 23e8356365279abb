"""The models on this machine: pulled from the hub as faster-whisper does it, and listed."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from v2td.child import Child, ChildDied
from v2td.config import EngineSettings
from v2td.engine import models_folder, write_manifest
from v2td.errors import ServiceError

PULL_SECONDS = 86_400.0
UNFINISHED = ".pulling-"  # before a model's name: the folder that is being filled
HUB_BOOKKEEPING = ".cache"  # what the hub's client leaves in a folder that it has filled


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model in the models folder."""

    name: str
    path: Path
    size_bytes: int


def installed(settings: EngineSettings) -> list[InstalledModel]:
    """Return the models in the folder, by name."""
    paths = sorted(path.parent for path in models_folder(settings).glob("[!.]*/model.bin"))
    return [InstalledModel(path.name, path, folder_bytes(path)) for path in paths]


def unfinished_folder(name: str, settings: EngineSettings) -> Path:
    """Return the folder that `pull` fills before it becomes the model's."""
    return models_folder(settings) / (UNFINISHED + _folder_name(name))


def folder_bytes(folder: Path) -> int:
    """Return the size of the files below a folder, which may change meanwhile."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                size += Path(parent, name).lstat().st_size
            except FileNotFoundError:
                continue
    return size


async def pull(name: str, settings: EngineSettings) -> Path:
    """Download a model and return its folder; at once when it is there already.

    The model appears whole or not at all: an error or a cancellation leaves nothing. Raises ServiceError.
    """
    if settings.offline:
        raise ServiceError(f"pull {name}", "engine.offline is set", "copy the model's folder, and name its path")
    target = models_folder(settings) / _folder_name(name)
    if (target / "model.bin").is_file():
        return target
    with _emptied(unfinished_folder(name, settings), name) as folder:
        # In a child: the hub's client downloads in threads, which nothing but the end of their process interrupts.
        async with Child(f"pull of {name}", _nothing) as child:
            try:
                await child.call(_download, name, folder, deadline_seconds=PULL_SECONDS)
            except ChildDied as death:
                raise ServiceError(f"pull {name}", f"the download {death.reason}") from death
        if not (folder / "model.bin").is_file():
            raise ServiceError(f"pull {name}", "there is no model.bin in it", "name a CTranslate2 Whisper model")
        shutil.rmtree(folder / HUB_BOOKKEEPING, ignore_errors=True)
        await asyncio.to_thread(write_manifest, folder)  # what changes from now on is noticed
        try:
            folder.rename(target)
        except OSError as error:
            raise ServiceError(f"pull {name}", f"{target}: {error.strerror}", "remove what is there") from error
    return target


def _folder_name(name: str) -> str:
    return name.rpartition("/")[2]  # of a repository OWNER/NAME


@contextmanager
def _emptied(folder: Path, name: str) -> Iterator[Path]:
    """Hold the lock of this pull, with an empty folder that is gone afterwards unless it was renamed."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_name(f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)  # of a pull that was killed
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        raise ServiceError(f"pull {name}", "it is being pulled already", "wait for the other command") from None
    except OSError as error:
        raise ServiceError(f"pull {name}", f"{folder.parent}: {error.strerror}", "set engine.models_dir") from error


def _nothing() -> None:
    """What the child has to set up."""


def _download(name: str, folder: Path) -> None:
    """Fill the folder; runs in the child. Raises ServiceError, since the hub's own errors cannot be pickled."""
    from faster_whisper import download_model  # noqa: PLC0415 (brings CTranslate2 along)
    from tqdm import tqdm  # noqa: PLC0415

    tqdm.set_lock(threading.RLock())  # its default lock is a semaphore that a killed child leaks
    operation = f"pull {name}"
    try:
        with warnings.catch_warnings(action="ignore"):  # of the hub's client about what faster-whisper asks of it
            download_model(name, output_dir=str(folder))
    except ValueError as error:  # no such name
        raise ServiceError(operation, str(error), "or name a repository of the hub: OWNER/NAME") from None
    except Exception as error:  # noqa: BLE001 (whatever the hub's client and its HTTP library of the day raise)
        detail = str(error).strip().partition("\n")[0].removeprefix("Got: ")
        endpoint = os.environ.get("HF_ENDPOINT", "the hub")
        raise ServiceError(
            operation,
            f"{endpoint} did not give it: {detail or type(error).__name__}",
            "is it reachable from here? HF_ENDPOINT names another hub; or copy a model's folder and name its path",
        ) from None
