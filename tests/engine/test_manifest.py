"""A model is loaded only when all its files are those that were vouched for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.engine.manifest import MAX_BYTES, NAME, verify, write_manifest
from v2td.errors import ConfigError

FILES = {"model.bin": b"weights", "config.json": b"{}", "tokenizer.json": b"{} "}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def refusal(folder: Path, manifest: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        verify(folder, manifest)
    assert caught.value.field == "engine.model_manifest"
    return caught.value.hint


def test_a_folder_without_is_not_judged(folder: Path) -> None:
    assert verify(folder, None) == 0


def test_what_we_write_is_what_sha256sum_writes_and_checks(folder: Path) -> None:
    write_manifest(folder)
    assert verify(folder, None) == len(FILES)
    theirs = subprocess.run(
        ["sha256sum", *sorted(FILES)], cwd=folder, capture_output=True, text=True, check=True
    ).stdout
    assert (folder / NAME).read_text() == theirs
    subprocess.run(["sha256sum", "--strict", "--check", NAME], cwd=folder, capture_output=True, check=True)


def test_sums_may_lie_elsewhere_and_win(folder: Path, tmp_path: Path) -> None:
    write_manifest(folder)
    sums = (folder / NAME).rename(tmp_path / "sums")
    (folder / NAME).write_text("nonsense")
    assert verify(folder, sums) == len(FILES)


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_any_flipped_bit_is_refused(name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("model")
    for each, content in FILES.items():
        (folder / each).write_bytes(content)
    write_manifest(folder)
    flipped = bytearray(FILES[name])
    bit = data.draw(st.integers(0, 8 * len(flipped) - 1))
    flipped[bit // 8] ^= 1 << bit % 8
    (folder / name).write_bytes(flipped)
    assert refusal(folder) == f"{folder / name} is not the file that was listed: its SHA-256 differs"


def test_a_missing_file_and_one_too_many_are_refused(folder: Path) -> None:
    write_manifest(folder)
    (folder / "vocabulary.json").write_text("[]")
    assert refusal(folder) == f"vocabulary.json is in {folder} and not listed"
    (folder / "vocabulary.json").unlink()
    (folder / "more").mkdir()
    assert refusal(folder) == f"more is in {folder} and not listed"
    (folder / "more").rmdir()
    (folder / "config.json").unlink()
    assert refusal(folder) == f"config.json is listed and not in {folder}"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\xff",
        b"0" * 64,
        b"g" * 64 + b"  model.bin\n",
        b"0" * 64 + b"  ../model.bin\n",
        b"\\" + b"0" * 64 + b"  model.bin\n",
        b"0" * 64 + b"  a\n" + b"a" * MAX_BYTES,
    ],
)
def test_what_is_no_manifest_is_refused(content: bytes, folder: Path) -> None:
    (folder / NAME).write_bytes(content)
    assert refusal(folder).startswith("not what `sha256sum` writes")


def test_what_cannot_be_read_is_refused(folder: Path, tmp_path: Path) -> None:
    assert "No such file" in refusal(folder, tmp_path / "nowhere")
    (folder / "more").mkdir()
    with pytest.raises(ConfigError, match="more: Is a directory"):
        write_manifest(folder)
