"""A look at a GGML file before whisper.cpp loads it, which notices little and may abort the whole process.

A file that is cut off in its last tensor is loaded without a word, a tensor of an unexpected type ends the process.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from v2td.errors import ServiceError

MAGIC = 0x67676D6C  # "ggml"
ENGLISH_TOKENS, MULTILINGUAL_TOKENS = 51864, 51865  # one more since large-v3, which knows Cantonese
MAX_NAME_BYTES = 256
MAX_TOKEN_BYTES = 4096
# GGML's number of a type → how many values a block holds, and its bytes.
TYPES = {
    0: (1, 4),  # float32
    1: (1, 2),  # float16
    2: (32, 18),  # q4_0
    3: (32, 20),  # q4_1
    6: (32, 22),  # q5_0
    7: (32, 24),  # q5_1
    8: (32, 34),  # q8_0
    10: (256, 84),  # q2_k
    11: (256, 110),  # q3_k
    12: (256, 144),  # q4_k
    13: (256, 176),  # q5_k
    14: (256, 210),  # q6_k
}
SAMPLES, SAMPLE_BYTES = 64, 65_536  # of the file, from which it is known again


@dataclass(frozen=True, slots=True)
class GgmlFile:
    """What a file says of its model; `digest` tells it from others."""

    tokens: int
    digest: str

    @property
    def multilingual(self) -> bool:
        """Whether it knows more than English."""
        return self.tokens >= MULTILINGUAL_TOKENS

    @property
    def cantonese(self) -> bool:
        """Whether it knows Whisper's hundredth language."""
        return self.tokens > MULTILINGUAL_TOKENS


def read_ggml(path: Path) -> GgmlFile:
    """Return what is in the file; ServiceError when it is no whole model. Blocks for milliseconds."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            tokens = _walk(file, size)
            return GgmlFile(tokens, _digest(file, size))
    except (OSError, ValueError) as error:
        detail = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise ServiceError(
            f"load {path}",
            detail,
            "give providers.whisper_cpp.model a whole GGML file, such as ggml-large-v3.bin of whisper.cpp",
        ) from error


def _walk(file: BinaryIO, size: int) -> int:
    """Return the number of tokens; ValueError when the file does not end where its last tensor does."""
    magic, tokens, *_rest = _numbers(file, 12)
    if magic != MAGIC:
        raise ValueError("no GGML file: it begins with other bytes")
    if tokens < ENGLISH_TOKENS:
        raise ValueError(f"no model of Whisper's: it has {tokens} tokens")
    bands, bins = _numbers(file, 2)
    _skip(file, 4 * bands * bins, size)
    (words,) = _numbers(file, 1)
    for _ in range(words):
        (length,) = _numbers(file, 1)
        if not 0 <= length <= MAX_TOKEN_BYTES:
            raise ValueError(f"damaged: a token has {length} bytes")
        _skip(file, length, size)
    tensors = 0
    while file.tell() < size:
        _skip_tensor(file, size)
        tensors += 1
    if tensors == 0:
        raise ValueError("it holds no weights")
    return tokens


def _skip_tensor(file: BinaryIO, size: int) -> None:
    dimensions, name_bytes, kind = _numbers(file, 3)
    if not 1 <= dimensions <= 4 or not 1 <= name_bytes <= MAX_NAME_BYTES:
        raise ValueError(f"damaged: no tensor at byte {file.tell() - 12}")
    shape = _numbers(file, dimensions)
    name = file.read(name_bytes).decode(errors="replace")
    if kind not in TYPES:
        raise ValueError(f"tensor {name} has a type that whisper.cpp does not know ({kind})")
    values, block = TYPES[kind]
    count = math.prod(shape)
    if min(shape) < 1 or count % values:
        raise ValueError(f"damaged: tensor {name} has the shape {shape}")
    _skip(file, count // values * block, size)


def _numbers(file: BinaryIO, count: int) -> tuple[int, ...]:
    content = file.read(4 * count)
    if len(content) < 4 * count:
        raise ValueError(f"cut off: it ends at byte {file.tell()}, inside its tensors or before")
    return struct.unpack(f"<{count}i", content)


def _skip(file: BinaryIO, count: int, size: int) -> None:
    if count < 0 or file.tell() + count > size:
        raise ValueError(f"cut off: it has {size} bytes, and would need {file.tell() + count} at least")
    file.seek(count, 1)


def _digest(file: BinaryIO, size: int) -> str:
    """Return a hex digest of samples from the whole file: hashing all of some gigabytes takes seconds."""
    digest = hashlib.sha256(str(size).encode())
    for index in range(SAMPLES):
        file.seek(max(0, size - SAMPLE_BYTES) * index // (SAMPLES - 1))
        digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
