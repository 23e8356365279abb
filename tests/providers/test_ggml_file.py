"""A look at GGML files: whole ones are known by what they hold, and nothing else gets through."""

import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from v2td.bundled import ggml_file
from v2td.errors import ServiceError
from v2td.providers.ggml_file import MAGIC, GgmlFile, read_ggml


def tensor(name: bytes, kind: int, shape: tuple[int, ...], size: int) -> bytes:
    head = struct.pack("<3i", len(shape), len(name), kind) + struct.pack(f"<{len(shape)}i", *shape)
    return head + name + bytes(size)


def model(tokens: int = 51865, *, tensors: bytes | None = None) -> bytes:
    """A file as small as can be: two mel filters, three words, three tensors."""
    head = struct.pack("<12i", MAGIC, tokens, 1500, 128, 2, 2, 448, 128, 2, 4, 80, 1)
    mel = struct.pack("<2i", 1, 2) + bytes(8)
    words = struct.pack("<i", 3) + b"".join(struct.pack("<i", len(each)) + each for each in (b"a", b"", b"\xff\xfe"))
    usual = tensor(b"f32", 0, (3,), 12) + tensor(b"f16", 1, (2, 3), 12) + tensor(b"q8_0", 8, (32, 2), 68)
    return head + mel + words + (usual if tensors is None else tensors)


def read(folder: Path, content: bytes) -> GgmlFile:
    path = folder / "model.bin"
    path.write_bytes(content)
    return read_ggml(path)


@pytest.mark.parametrize(
    ("tokens", "multilingual", "cantonese"), [(51864, False, False), (51865, True, False), (51866, True, True)]
)
def test_the_vocabulary_tells_the_languages(tmp_path: Path, tokens: int, multilingual: bool, cantonese: bool) -> None:
    found = read(tmp_path, model(tokens))
    assert (found.multilingual, found.cantonese) == (multilingual, cantonese)


def test_the_digest_tells_files_apart_and_not_places(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert read(tmp_path, model()).digest == read(tmp_path / "elsewhere", model()).digest
    assert read(tmp_path, model()).digest != read(tmp_path, model()[:-1] + b"1").digest


@pytest.mark.slow
def test_a_change_in_any_sample_of_a_large_file_changes_its_digest(tmp_path: Path) -> None:
    content = bytearray(ggml_file("tiny").read_bytes())
    before = read(tmp_path, bytes(content)).digest
    content[-1] ^= 1
    assert read(tmp_path, bytes(content)).digest != before


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (b"", "no weights"),
        (tensor(b"strange", 99, (1,), 4), "tensor strange has a type that whisper.cpp does not know"),
        (tensor(b"q8_0", 8, (31,), 34), "tensor q8_0 has the shape"),
        (tensor(b"minus", 0, (-1, -4), 16), "tensor minus has the shape"),
        (tensor(b"huge", 0, (2**31 - 1, 2**31 - 1, 2**31 - 1, 2**31 - 1), 4), "cut off"),
        (struct.pack("<3i", 9, 1, 0), "no tensor at byte"),
        (struct.pack("<3i", 1, 2**30, 0), "no tensor at byte"),
    ],
)
def test_damage_is_named(tmp_path: Path, tensors: bytes, said: str) -> None:
    with pytest.raises(ServiceError, match=said) as caught:
        read(tmp_path, model(tensors=tensors))
    assert caught.value.operation == f"load {tmp_path / 'model.bin'}"


def test_no_part_of_a_file_passes_for_the_whole(tmp_path: Path) -> None:
    whole = model()
    taken = set()
    for length in range(len(whole)):
        with suppress(ServiceError):
            read(tmp_path, whole[:length])
            taken.add(length)
    last, second = len(tensor(b"q8_0", 8, (32, 2), 68)), len(tensor(b"f16", 1, (2, 3), 12))
    # Where a tensor ends, whisper.cpp itself notices: it counts them.
    assert taken == {len(whole) - last, len(whole) - last - second}


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_read_or_refused_and_nothing_else(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(model())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ServiceError):
        assert read(tmp_path, bytes(content)).tokens >= 51864


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
@example(content=struct.pack("<12i", MAGIC, *([2**31 - 1] * 11)) + struct.pack("<2i", 2**31 - 1, 2**31 - 1))
@example(content=struct.pack("<12i", MAGIC, *([51865] * 11)) + struct.pack("<2i", -1, 4))
@example(content=struct.pack("<12i", MAGIC, *([51865] * 11)) + struct.pack("<3i", 0, 0, -1))
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ServiceError):
        read(tmp_path, content)
