"""Holes in a file of a real tmpfs."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from v2td.speech.holes import punch_hole

PAGE = 4096


@pytest.fixture
def shared_memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="v2td-test-") as folder:  # what speech.pcm_dir is
        yield Path(folder)


def test_memory_is_given_back_and_the_rest_stays(shared_memory: Path) -> None:
    file = shared_memory / "pcm"
    content = bytes(range(1, 256)) * 1024
    file.write_bytes(content)
    before = file.stat()
    assert before.st_blocks * 512 >= len(content)
    end = 20 * PAGE + 100  # within a page: the rest of it is still needed
    assert punch_hole(file, 0, end)
    assert file.read_bytes() == bytes(end) + content[end:]
    assert file.stat().st_size == before.st_size
    assert (before.st_blocks - file.stat().st_blocks) * 512 == 20 * PAGE
    assert punch_hole(file, 0, end)  # nothing is there


def test_a_file_system_without_holes_says_no_and_does_nothing() -> None:
    assert not punch_hole(Path("/dev/null"), 0, PAGE)


def test_a_file_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        punch_hole(tmp_path / "gone", 0, PAGE)
