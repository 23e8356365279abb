"""What can never fit; the folders themselves are tested where they are used, in tests/fetch/test_spool.py."""

import os
from pathlib import Path

from v2td.scratch import Remover, can_never_fit


def test_half_of_the_file_system_is_the_limit(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    total = status.f_blocks * status.f_frsize
    assert can_never_fit(tmp_path, total // 2 + 1)
    assert not can_never_fit(tmp_path, total // 2)


def test_what_cannot_be_deleted_now_goes_with_the_next(tmp_path: Path) -> None:
    """A folder stands for a file of a disk that is read-only: unlink is refused."""
    remover = Remover()
    stuck, other = tmp_path / "stuck", tmp_path / "other"
    stuck.mkdir()
    other.touch()
    remover.remove(stuck)
    remover.remove(other)
    assert stuck.exists()
    assert not other.exists()
    stuck.rmdir()
    stuck.touch()
    remover.remove(tmp_path / "gone")
    assert not stuck.exists()
