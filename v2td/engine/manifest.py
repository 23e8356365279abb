"""Are the files of a model those that somebody vouched for? Sums as `sha256sum` writes and checks them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from v2td.errors import ConfigError

NAME = "SHA256SUMS"
SETTING = "engine.model_manifest"
MAX_BYTES = 1_000_000  # of a manifest; a model has half a dozen files
_LINE = re.compile(r"(?P<sum>[0-9a-f]{64}) [ *](?P<name>[^/\\\0]+)")


def verify(folder: Path, manifest: Path | None) -> int:
    """Compare all files of a folder with `manifest`, else with the SHA256SUMS in it; return how many there are.

    0 when neither is there. ConfigError when a file differs, is missing, or is not listed: the loader would read it.
    Blocks for about a second for each gigabyte.
    """
    if manifest is None and not (folder / NAME).exists():
        return 0
    manifest = manifest or folder / NAME
    listed = _read(manifest)
    there = _files(folder)
    if missing := sorted(listed.keys() - there.keys()):
        raise _refusal(manifest, f"{missing[0]} is listed and not in {folder}")
    if unlisted := sorted(there.keys() - listed.keys()):
        raise _refusal(manifest, f"{unlisted[0]} is in {folder} and not listed")
    for name, path in sorted(there.items()):
        if _sum(manifest, path) != listed[name]:
            raise _refusal(manifest, f"{path} is not the file that was listed: its SHA-256 differs")
    return len(there)


def write_manifest(folder: Path) -> None:
    """Write SHA256SUMS for the files that are in a folder now."""
    manifest = folder / NAME
    lines = [f"{_sum(manifest, path)}  {name}\n" for name, path in sorted(_files(folder).items())]
    manifest.write_text("".join(lines))


def _files(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.glob("[!.]*") if path.name != NAME}


def _read(manifest: Path) -> dict[str, str]:
    try:
        with manifest.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        lines = content.decode().splitlines()
    except OSError as error:
        raise _refusal(manifest, f"{error.strerror}: make it in the model's folder, `sha256sum * >{NAME}`") from None
    except UnicodeDecodeError:
        lines = [""]
    matches = [_LINE.fullmatch(line) for line in lines]
    if not lines or len(content) > MAX_BYTES or None in matches:
        raise _refusal(manifest, "not what `sha256sum` writes, a line for each file of the folder")
    return {match["name"]: match["sum"] for match in matches if match}


def _sum(manifest: Path, path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:  # a folder, too
        raise _refusal(manifest, f"{path}: {error.strerror}") from None


def _refusal(manifest: Path, hint: str) -> ConfigError:
    return ConfigError(SETTING, str(manifest), hint)
