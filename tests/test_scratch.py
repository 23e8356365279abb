"""What can never fit; the folders themselves are tested where they are used, in tests/fetch/test_spool.py."""

import os
from pathlib import Path

from v2td.scratch import can_never_fit


def test_half_of_the_file_system_is_the_limit(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    total = status.f_blocks * status.f_frsize
    assert can_never_fit(tmp_path, total // 2 + 1)
    assert not can_never_fit(tmp_path, total // 2)
