"""Compact weights → a GGML file of whisper.cpp, in which the model says the same as in faster-whisper.

The file is: a magic number and eleven hyperparameters; the mel filters; the text tokens as bytes, by their ids (the
special ones whisper.cpp knows itself); then each tensor with its name, its dimensions backwards, and its values.
Numbers are little-endian int32, and float32 but for matrices and convolutions, which whisper.cpp wants in float16:
another type than it expects aborts the whole process.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor

from v2td.bundled.expand import ENCODER_POSITIONS, HEAD_WIDTH, VOCABULARY_SIZE, Array, Parameters, expanded, layers

MAGIC = 0x67676D6C  # "ggml"
DECODER_POSITIONS = 448
MEL_BANDS, FFT_BINS = 80, 201
TEXT_TOKENS = 50257  # what lies behind them is special
HALF = 1  # GGML's number of float16, of a file and of a tensor; 0 is float32

_WHOLE = {
    "enc.pos": "encoder.positional_embedding",
    "dec.pos": "decoder.positional_embedding",
    "dec.emb": "decoder.token_embedding.weight",
}
_SIDES = {"enc": "encoder", "dec": "decoder"}
_KINDS = {"w": "weight", "b": "bias"}
_PARTS = {"q": "query", "k": "key", "v": "value", "o": "out"}
_MODULES = {
    "attn": "attn",
    "cross": "cross_attn",
    "attn_ln": "attn_ln",
    "cross_ln": "cross_attn_ln",
    "mlp_ln": "mlp_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
}


def write_ggml(path: Path, weights: Path, tokenizer: Path, size: str) -> None:
    """Write the model at that size, a key of DIMENSIONS."""
    parameters = expanded(weights, size)
    with path.open("wb") as file:
        _write_head(file, parameters)
        _write_vocabulary(file, tokenizer)
        for name, values in parameters.items():
            _write_tensor(file, name, values)


def _write_head(file: BinaryIO, parameters: Parameters) -> None:
    width = len(parameters["enc.ln.w"])
    heads = width // HEAD_WIDTH
    encoder = (ENCODER_POSITIONS, width, heads, layers(parameters, "enc"))
    decoder = (DECODER_POSITIONS, width, heads, layers(parameters, "dec"))
    file.write(struct.pack("<12i", MAGIC, VOCABULARY_SIZE, *encoder, *decoder, MEL_BANDS, HALF))
    filters = np.asarray(FeatureExtractor.get_mel_filters(16_000, 400, MEL_BANDS), np.float32)
    file.write(struct.pack("<2i", MEL_BANDS, FFT_BINS))
    file.write(filters.tobytes())


def _write_vocabulary(file: BinaryIO, tokenizer: Path) -> None:
    vocabulary = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
    tokens = {index: token for token, index in vocabulary.items()}
    byte_of = _byte_alphabet()
    file.write(struct.pack("<i", TEXT_TOKENS))
    for index in range(TEXT_TOKENS):
        # An id that the model was not trained on is never said, but no two tokens may be called the same.
        token = bytes(byte_of[letter] for letter in tokens[index]) if index in tokens else b"?%d" % index
        file.write(struct.pack("<i", len(token)))
        file.write(token)


def _byte_alphabet() -> dict[str, int]:
    """Return the byte that each letter of GPT-2's tokens stands for: printable ones themselves, others from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


def _write_tensor(file: BinaryIO, name: str, values: Array) -> None:
    if name in ("enc.conv1.b", "enc.conv2.b"):
        values = values.reshape(-1, 1)  # whisper.cpp adds it to each column
    half = values.ndim > 1 and not name.endswith((".pos", ".b"))
    stored = np.ascontiguousarray(values, np.float16 if half else np.float32)
    called = _name(name).encode()
    file.write(struct.pack("<3i", stored.ndim, len(called), HALF if half else 0))
    file.write(struct.pack(f"<{stored.ndim}i", *stored.shape[::-1]))
    file.write(called)
    file.write(stored.tobytes())


def _name(ours: str) -> str:
    """Return what OpenAI calls a parameter: "enc.0.attn.q.w" is encoder.blocks.0.attn.query.weight."""
    if ours in _WHOLE:
        return _WHOLE[ours]
    side, *path, kind = ours.split(".")
    if path == ["ln"]:
        path = ["ln_post" if side == "enc" else "ln"]
    elif len(path) > 1:
        index, module, *part = path
        path = ["blocks", index, _MODULES[module], *(_PARTS[each] for each in part)]
    return ".".join([_SIDES[side], *path, _KINDS[kind]])
