import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.bundled import Size, model_folder
from v2td.config import EngineSettings
from v2td.engine.footprint import ModelShape, batch_bytes, estimated_bytes, peak_bytes, read_shape
from v2td.errors import ConfigError

MIB = 1 << 20
BASE = ModelShape(parameters=72_000_000, stored_bytes=74_000_000, width=512, decoder_layers=6)

# Highest resident memory, in MiB, of a process of one thread that decoded 8 windows of dense speech together, with
# one beam and with five (CTranslate2 4.8.5): stored and computed alike.
MEASURED = {
    ("micro", "int8"): (236, 261),
    ("micro", "float32"): (269, 287),
    ("tiny", "int8"): (456, 497),
    ("tiny", "float32"): (537, 584),
    ("base", "int8"): (672, 787),
    ("base", "float32"): (822, 943),
    ("small", "int8"): (1440, 1774),
    ("small", "float32"): (1947, 2227),
}
DIMENSIONS: dict[Size, tuple[int, int, float]] = {  # width, decoder layers, millions of parameters
    "micro": (128, 4, 8.4),
    "tiny": (384, 4, 37.2),
    "base": (512, 6, 65.5),
    "small": (768, 12, 186.7),
}


@pytest.mark.parametrize(("size", "compute"), MEASURED)
def test_the_estimate_is_above_what_was_measured_and_not_far(size: Size, compute: str) -> None:
    width, layers, millions = DIMENSIONS[size]
    parameters = int(millions * 1e6)
    shape = ModelShape(parameters, parameters * (1 if compute == "int8" else 4), width, layers)
    for beam, measured in zip((1, 5), MEASURED[size, compute], strict=True):
        assert measured < peak_bytes(shape, compute, 8, beam) / MIB < 1.3 * measured


def test_the_shape_is_read_from_the_file() -> None:
    shape = read_shape(model_folder() / "model.bin")
    assert shape is not None
    assert (shape.width, shape.decoder_layers) == (128, 4)
    assert shape.parameters == pytest.approx(8.4e6, rel=0.1)
    assert shape.stored_bytes == pytest.approx((model_folder() / "model.bin").stat().st_size, rel=0.01)


def test_what_settings_change() -> None:
    def estimate(**settings: object) -> int:
        return estimated_bytes(model_folder(), EngineSettings.model_validate(settings))

    assert estimate() == estimate(batch_windows=8) == estimate(beam_size=1)
    assert estimate(compute_type="default") == estimate(compute_type="auto") == estimate()
    assert estimate(compute_type="float32") > estimate(compute_type="int16") > estimate()
    assert estimate(batch_windows=1) < estimate() < estimate(beam_size=5)
    assert estimate() - estimate(batch_windows=1) == pytest.approx(
        batch_bytes(model_folder(), EngineSettings()) * 7 / 8, rel=0.2
    )


@given(windows=st.integers(1, 64), beams=st.integers(1, 16), layers=st.integers(1, 32))
def test_more_takes_more(windows: int, beams: int, layers: int) -> None:
    shape = ModelShape(BASE.parameters, BASE.stored_bytes, BASE.width, layers)
    deeper = ModelShape(BASE.parameters, BASE.stored_bytes, BASE.width, layers + 1)
    peak = peak_bytes(shape, "int8", windows, beams)
    assert peak > peak_bytes(shape, "int8", 0, beams)
    assert peak < peak_bytes(shape, "int8", windows + 1, beams)
    assert peak < peak_bytes(shape, "int8", windows, beams + 1)
    assert peak < peak_bytes(deeper, "int8", windows, beams)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x06\0\0\0", struct.pack("<I", 7) + bytes(100), struct.pack("<IH", 6, 3) + b"\xff\xfe\0" + bytes(50)],
)
def test_a_file_of_another_kind_counts_by_its_size(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.bin").write_bytes(content.ljust(10 * MIB, b"\0"))
    assert read_shape(tmp_path / "model.bin") is None
    assert 200 * MIB < estimated_bytes(tmp_path, EngineSettings()) < 400 * MIB


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^engine\.model = .*: model\.bin cannot be read: No such file"):
        estimated_bytes(tmp_path, EngineSettings())
