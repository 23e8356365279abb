from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from v2td.demo import folder as module
from v2td.demo.folder import demo_folder


def test_it_is_private_and_goes() -> None:
    with demo_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)
        (folder / "something").mkdir()
    assert not folder.exists()


def test_it_goes_after_an_exception() -> None:
    with pytest.raises(RuntimeError), demo_folder() as folder:
        raise RuntimeError
    assert not folder.exists()


def test_the_folder_of_a_demo_that_lives_is_left_alone() -> None:
    with demo_folder() as first:
        with demo_folder() as second:
            assert first.exists()
            assert second != first
        assert first.exists()


def test_what_a_dead_demo_left_is_removed() -> None:
    with demo_folder() as folder:
        left = folder.parent / f"{module.PREFIX}dead"
    (left / "postgres").mkdir(parents=True)
    with demo_folder():
        assert not left.exists()


def test_a_link_of_that_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with demo_folder() as folder:
        link = folder.parent / f"{module.PREFIX}link"
    link.symlink_to(tmp_path)
    try:
        with demo_folder():
            assert (tmp_path / "precious").exists()
    finally:
        link.unlink()


def test_a_temporary_folder_too_deep_for_a_socket_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with demo_folder() as folder:
        assert not folder.is_relative_to(deep)
