"""Files of a checkout that are made from the code: which are outdated, and writing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

Files = Mapping[str, Callable[[], str]]  # what makes each, by its path


def outdated(files: Files, root: Path = ROOT) -> list[str]:
    """Return the files that are not what they would be if they were made now."""
    return [name for name, render in files.items() if not _is(root / name, render())]


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def main(files: Files, module: str, arguments: list[str], root: Path = ROOT) -> int:
    """Write the files that are outdated, or name them and fail; returns the exit code of `python -m module`."""
    names = outdated(files, root)
    write = arguments == ["--write"]
    for name in names:
        if write:
            (root / name).write_text(files[name](), encoding="utf-8")
        print(name, "written" if write else f"is outdated: python -m {module} --write")
    return 0 if write or not names else 1
