"""Builds of the services, made once into the user's cache folder and found again by every later checkout."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.services import kafka, minio, otlp, prerequisites, versitygw, whisper_server
from tests.services.errors import ServiceError
from tests.services.prerequisites import Prerequisite
from tests.services.state import locked

_STAMP = "stamp.json"
_DRAFT_PREFIX = "draft-"


@dataclass(frozen=True, slots=True)
class Builds:
    """Where the builds are: Kafka's jars, and the binaries ``minio``/minio, ``versitygw``/versitygw,
    ``whisper_server``/whisper-server and ``otlp``/otlp-receiver.
    """

    kafka: Path
    minio: Path
    versitygw: Path
    whisper_server: Path
    otlp: Path


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one build is made; ``versions`` is all that its result depends on, ``needs`` all that making it takes."""

    name: str
    versions: dict[str, str]
    needs: tuple[Prerequisite, ...]
    make: Callable[[Path], None]

    def folder(self, cache: Path) -> Path:
        """The build's place in the cache."""
        return cache / f"{self.name}-{next(iter(self.versions.values()))}"

    def done(self, cache: Path) -> bool:
        """Whether the cache holds this very build."""
        try:
            stamp = json.loads((self.folder(cache) / _STAMP).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(stamp == self.versions)


RECIPES = (
    Recipe(
        "kafka",
        {"kafka": kafka.VERSION, "slf4j": kafka.SLF4J_VERSION, "plugin": kafka.PLUGIN},
        (prerequisites.MAVEN,),
        kafka.build,
    ),
    Recipe("minio", {"minio": minio.VERSION}, (prerequisites.GO,), minio.build),
    Recipe("versitygw", {"versitygw": versitygw.VERSION}, (prerequisites.GO,), versitygw.build),
    Recipe(
        "whisper_server",
        {"whisper_server": whisper_server.VERSION, "sha256": whisper_server.SHA256},
        prerequisites.CXX,
        whisper_server.build,
    ),
    Recipe("otlp", {"otlp": otlp.VERSION, "sha256": otlp.SHA256}, (prerequisites.GO,), otlp.build),
)


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/v2td, or ~/.cache/v2td."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "v2td"


def built(name: str) -> Path:
    """The folder of a build that is there.  Raises ServiceError naming what makes it."""
    (recipe,) = (each for each in RECIPES if each.name == name)
    if not recipe.done(cache_folder()):
        raise ServiceError(f"{name} is not built: python -m tests.services build")
    return recipe.folder(cache_folder())


def build() -> Builds:
    """Makes what the cache does not hold yet, and installs or names the programs that all of it takes.

    Blocks: milliseconds when all is there, otherwise up to some minutes, and while another process builds.
    Raises ServiceError when a program is missing or a build fails.
    """
    cache = cache_folder()
    with locked(cache / "lock"):
        missing = [recipe for recipe in RECIPES if not recipe.done(cache)]
        needs = (each for recipe in missing for each in recipe.needs)
        needed = [prerequisites.JAVA, *needs, prerequisites.POSTGRES]
        prerequisites.ensure([*needed, *prerequisites.TESTS])
        for recipe in missing:
            _make(recipe, cache)
    folders = {recipe.name: recipe.folder(cache) for recipe in RECIPES}
    return Builds(**folders)


def _make(recipe: Recipe, cache: Path) -> None:
    """Builds into a draft folder and renames it when it is whole, so that a killed build leaves nothing half done."""
    for leftover in cache.glob(f"{_DRAFT_PREFIX}*"):
        shutil.rmtree(leftover)
    draft = cache / f"{_DRAFT_PREFIX}{recipe.name}"
    draft.mkdir(parents=True)
    print(f"building {recipe.name} {recipe.versions[recipe.name]} (once)", flush=True)
    began = time.monotonic()
    try:
        recipe.make(draft)
    except subprocess.CalledProcessError as error:
        raise ServiceError(f"{recipe.name} could not be built: {error}") from error
    (draft / _STAMP).write_text(json.dumps(recipe.versions), encoding="utf-8")
    target = recipe.folder(cache)
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)
    print(f"built {recipe.name} in {time.monotonic() - began:.0f} s: {target}", flush=True)
