"""Finds the model that the settings name on this machine."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from v2td import bundled
from v2td.config import EngineSettings
from v2td.engine import manifest
from v2td.errors import ConfigError
from v2td.logs import get_logger

log = get_logger(__name__)

DEMO = "demo"
SHORT_WINDOWS = "short_windows"
SHORT_REFUSED = (
    f"the model does not say that it is adapted to windows shorter than 30 s, and others lose most words: its "
    f'config.json has no `"{SHORT_WINDOWS}": true`, its README.md no `{SHORT_WINDOWS}: true`; use full or packed'
)


def models_folder(settings: EngineSettings) -> Path:
    """Where named models lie: the setting, else the systemd state folder, else the user's cache."""
    if settings.models_dir is not None:
        return settings.models_dir
    if state := os.environ.get("STATE_DIRECTORY"):
        return Path(state.split(":")[0]) / "models"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "v2td" / "models"


def find_model(settings: EngineSettings) -> Path:
    """Return the CTranslate2 folder of `settings.model`; ConfigError with the cure when there is none.

    `demo` is the model that v2td brings along; its folder is made when it is first asked for.
    """
    if settings.model == DEMO:
        return bundled.model_folder()
    path = Path(settings.model) if "/" in settings.model else models_folder(settings) / settings.model
    if (path / "model.bin").is_file():
        return path
    cure = (
        "give the folder of a CTranslate2 model"
        if "/" in settings.model
        else f"run `v2td model pull {settings.model}`, or use the bundled `demo`"
    )
    raise ConfigError("engine.model", settings.model, f"no model.bin in {path}; {cure}")


def verified_model(settings: EngineSettings) -> Path:
    """Find the model and compare it with its manifest, if there is one; ConfigError when it must not be loaded.

    Blocks for about a second for each gigabyte that is compared.
    """
    path = find_model(settings)
    if not (path / "tokenizer.json").is_file():  # faster-whisper would ask the hub for one
        raise ConfigError("engine.model", settings.model, f"no tokenizer.json in {path}, and no hub is asked for it")
    if files := manifest.verify(path, settings.model_manifest):
        log.info("model verified", folder=str(path), files=files)
    return path


def takes_short_windows(folder: Path) -> bool:
    """Whether a model says, in its config.json or in the head of its card, that it is adapted to short windows."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        config = {}
    if isinstance(config, dict) and config.get(SHORT_WINDOWS) is True:
        return True
    try:
        card = (folder / "README.md").read_text()
    except (OSError, ValueError):
        return False
    head = card.split("---")[1] if card.startswith("---") else ""
    return re.search(rf"^{SHORT_WINDOWS}:\s*true\s*$", head, re.MULTILINE) is not None
