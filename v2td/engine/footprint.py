"""What one copy of a model needs in memory, read from the head of its file before it is loaded."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

from v2td.config import EngineSettings
from v2td.errors import ConfigError

BINARY_VERSION = 6  # of CTranslate2's model.bin; the shapes of another one are not read, only its size
PROCESS_BYTES = 180 << 20  # Python, the libraries, their buffers: measured, whatever the model
POSITIONS = 1500  # of an encoder output
TEXT_TOKENS = 224  # of a window at most
HEAD_DIM = 64
FLOAT32 = 4
BATCH_WINDOWS = 8
MARGIN = 1.1  # between the highest peak that was measured and this estimate
TYPE_BYTES = {"int8": 1, "int8_float16": 1, "int16": 2, "float16": FLOAT32, "bfloat16": FLOAT32, "float32": FLOAT32}
UNREAD_FACTOR = 10  # peak ÷ size of a small int8 model: the highest of the stock models


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The dimensions that memory depends on; `parameters` and `stored_bytes` of all weights."""

    parameters: int
    stored_bytes: int
    width: int
    decoder_layers: int


def estimated_bytes(folder: Path, settings: EngineSettings) -> int:
    """Return the peak of a slot's process on a CPU that holds the model of `folder`, in bytes of resident memory.

    Reads the names and shapes in model.bin, some kilobytes; ConfigError when there is none.
    """
    shape = _shape_of(folder)
    if isinstance(shape, int):
        return PROCESS_BYTES + UNREAD_FACTOR * shape
    return peak_bytes(shape, settings.compute_type, *_batch(settings))


def batch_bytes(folder: Path, settings: EngineSettings) -> int:
    """Return how much a full batch adds to a process that has loaded the model; ConfigError as above."""
    shape = _shape_of(folder)
    if isinstance(shape, int):
        return UNREAD_FACTOR * shape
    return int(MARGIN * _activations(shape, *_batch(settings)))


def peak_bytes(shape: ModelShape, compute_type: str, batch_windows: int, beam_size: int) -> int:
    """Return the peak of a process that decodes so many windows together (pure)."""
    quantized = shape.stored_bytes < 1.5 * shape.parameters
    weight_bytes = TYPE_BYTES.get(compute_type, 1 if quantized else FLOAT32)  # "default" and "auto" keep int8
    return int(
        PROCESS_BYTES + MARGIN * (shape.parameters * weight_bytes + _activations(shape, batch_windows, beam_size))
    )


def _activations(shape: ModelShape, batch_windows: int, beam_size: int) -> int:
    """Return the bytes of what is computed; float32 whatever the weights are.

    For each window: keys and values of both attentions in each decoder layer, and the encoder's output (three
    times while a batch is put together). Once, since windows are encoded one by one: the encoder's attention.
    """
    vector = shape.width * FLOAT32
    outputs = (2 * shape.decoder_layers + 3) * POSITIONS * vector
    text = 2 * shape.decoder_layers * beam_size * TEXT_TOKENS * vector
    scores = POSITIONS**2 * shape.width // HEAD_DIM * FLOAT32
    return batch_windows * (outputs + text) + scores


def _batch(settings: EngineSettings) -> tuple[int, int]:
    return settings.batch_windows or BATCH_WINDOWS, settings.beam_size or 1


def _shape_of(folder: Path) -> ModelShape | int:
    """Return the shape of the model, or the size of its file where that is all that can be known."""
    path = folder / "model.bin"
    try:
        return read_shape(path) or path.stat().st_size
    except OSError as error:
        raise ConfigError("engine.model", str(folder), f"model.bin cannot be read: {error.strerror}") from None


def read_shape(path: Path) -> ModelShape | None:
    """Return the shape of a CTranslate2 model.bin, or None when it is none that we know; OSError passes through."""
    with path.open("rb") as file:
        try:
            return _shape(file)
        except (struct.error, UnicodeDecodeError):
            return None


def _shape(file: BinaryIO) -> ModelShape | None:
    if _number(file, "<I") != BINARY_VERSION:
        return None
    _text(file)
    _revision, count = _number(file, "<I"), _number(file, "<I")
    parameters = stored = width = layers = 0
    for _ in range(count):
        name = _text(file)
        shape = [_number(file, "<I") for _ in range(_number(file, "<B"))]
        _number(file, "<B")  # its type
        size = _number(file, "<I")
        file.seek(size, 1)
        parameters += prod(shape)
        stored += size
        if name == "decoder/embeddings/weight":
            width = shape[-1]
        if layer := re.match(r"decoder/layer_(\d+)/", name):
            layers = max(layers, int(layer[1]) + 1)
    return ModelShape(parameters, stored, width, layers) if width and layers else None


def _number(file: BinaryIO, kind: str) -> int:
    value: int = struct.unpack(kind, file.read(struct.calcsize(kind)))[0]
    return value


def _text(file: BinaryIO) -> str:
    """Return a string: its length with the zero behind it, then both."""
    return file.read(_number(file, "<H"))[:-1].decode()
