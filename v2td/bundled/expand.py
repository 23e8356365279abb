"""Compact weights → a CTranslate2 Whisper folder that stock faster-whisper loads, at several sizes.

How widening keeps the function: every feature is repeated k times (k = new width / 128). LayerNorm sees the same
mean and variance, a matrix is tiled both ways and divided by k, and attention heads (64 wide, as in every Whisper)
become k equal copies. The last LayerNorm is divided by k, because the output projection, tied to the token
embedding, now sums k equal copies. Added layers have a zero output projection (they add nothing to the residual
stream) and random weights inside: the same transcripts at the true cost of that size.

The vocabulary has the full 51865 ids of multilingual Whisper, because CTranslate2 calls a model with fewer
English-only. Only some ids were trained. The last feature is reserved: it is -10 in the embedding of every other id
and 0 in the trained ones, and the last LayerNorm puts the constant 2.5 there, so all other ids have the logit -25.

Arrays are float32. Names are side.layer.module.matrix: "enc.0.attn.q.w" is the query matrix of the encoder's first
layer, "dec.2.cross.o.b" the output bias of the cross-attention of the decoder's third.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ctranslate2.specs import whisper_spec

Array = npt.NDArray[np.float32]
Parameters = dict[str, Array]

DIMENSIONS = {  # width, encoder layers, decoder layers
    "micro": (128, 2, 4),
    "tiny": (384, 4, 4),
    "base": (512, 6, 6),
    "small": (768, 12, 12),
}
HEAD_WIDTH = 64
ENCODER_POSITIONS = 1500
VOCABULARY_SIZE = 51865
UNTRAINED, CONSTANT = -10.0, 2.5  # the reserved feature: in an untrained id's embedding, and in every hidden state
TRANSLATE, TRANSCRIBE = 50358, 50359
LANGUAGES = list(range(50259, 50358))
ALIGNMENT_HEADS = [[1, 0], [3, 0]]  # decoder layer, head: trained to point at the sound of the next token
SUPPRESS_AT_BEGIN = [220, 50257]
# As in OpenAI's generation config.
SUPPRESS = [
    *(1, 2, 7, 8, 9, 10, 14, 25, 26, 27, 28, 29, 31, 58, 59, 60, 61, 62, 63, 90, 91, 92, 93, 359, 503, 522, 542),
    *(873, 893, 902, 918, 922, 931, 1350, 1853, 1982, 2460, 2627, 3246, 3253, 3268, 3536, 3846, 3961, 4183, 4667),
    *(6585, 6647, 7273, 9061, 9383, 10428, 10929, 11938, 12033, 12331, 12562, 13793, 14157, 14635, 15265, 15618),
    *(16553, 16604, 18362, 18956, 20075, 21675, 22520, 26130, 26161, 26435, 28279, 29464, 31650, 32302, 32470),
    *(36865, 42863, 47425, 49870, 50254, 50258, 50358, 50359, 50360, 50361, 50362),
]
FRONT_END = {"feature_size": 80, "sampling_rate": 16000, "hop_length": 160, "chunk_length": 30, "n_fft": 400}


def write_model(folder: Path, weights: Path, tokenizer: Path, size: str, compute: str) -> None:
    """Write the model files into an existing folder; `size` is a key of DIMENSIONS, `compute` a CTranslate2 type."""
    parameters = expanded(weights, size)
    spec = _specification(parameters)
    spec.register_vocabulary(_vocabulary(tokenizer))
    spec.validate()
    spec.optimize(quantization=None if compute == "float32" else compute)
    spec.save(str(folder))
    (folder / "preprocessor_config.json").write_text(json.dumps(FRONT_END), encoding="utf-8")
    shutil.copyfile(tokenizer, folder / "tokenizer.json")


def expanded(weights: Path, size: str) -> Parameters:
    """Return all parameters of the model at that size."""
    parameters = _load(weights)
    return parameters if size == "micro" else _widen(parameters, *DIMENSIONS[size])


def _load(weights: Path) -> Parameters:
    """The parameters at the trained width, with what the file leaves out: positions, and the untrained ids."""
    with np.load(weights) as stored:
        parameters = {name: stored[name].astype(np.float32) for name in stored.files if name != "ids"}
        trained_ids = stored["ids"].astype(int)
    width = len(parameters["enc.ln.w"])
    frequencies = np.exp(-np.log(10000) / (width // 2 - 1) * np.arange(width // 2))
    angles = np.arange(ENCODER_POSITIONS)[:, None] * frequencies
    parameters["enc.pos"] = np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)

    embedding = np.zeros((VOCABULARY_SIZE, width), np.float32)
    embedding[:, -1] = UNTRAINED
    embedding[trained_ids, : width - 1] = parameters.pop("dec.W")
    embedding[trained_ids, -1] = 0
    embedding[TRANSLATE] = embedding[TRANSCRIBE]  # it cannot translate: the task "translate" transcribes
    parameters["dec.emb"] = embedding
    parameters["dec.ln.w"][-1] = 0
    parameters["dec.ln.b"][-1] = CONSTANT
    return parameters


def _widen(parameters: Parameters, width: int, encoder_layers: int, decoder_layers: int) -> Parameters:
    copies = width // len(parameters["enc.ln.w"])
    wide = {name: _repeat(name, values, copies) for name, values in parameters.items()}
    for name in ("dec.ln.w", "dec.ln.b"):
        wide[name] = wide[name] / np.float32(copies)
    rng = np.random.default_rng(0)
    for side, wanted in (("enc", encoder_layers), ("dec", decoder_layers)):
        first = f"{side}.0."
        prototype = {name.removeprefix(first): values for name, values in wide.items() if name.startswith(first)}
        for index in range(layers(wide, side), wanted):
            for name, values in prototype.items():
                wide[f"{side}.{index}.{name}"] = _idle(name, values, rng)
    return wide


def _repeat(name: str, values: Array, copies: int) -> Array:
    if name in ("enc.pos", "dec.pos", "dec.emb"):
        return np.tile(values, (1, copies))
    if name == "enc.conv1.w":  # its input, the 80 mel bands, stays as it is
        return np.tile(values, (copies, 1, 1))
    if name == "enc.conv2.w":
        return np.tile(values, (copies, copies, 1)) / np.float32(copies)
    if values.ndim == 2:
        return np.tile(values, (copies, copies)) / np.float32(copies)
    return np.tile(values, copies)


def _idle(name: str, like: Array, rng: np.random.Generator) -> Array:
    """Values for an added layer that costs what a real one does and changes nothing."""
    if name.endswith("ln.w"):
        return np.ones_like(like)
    if like.ndim == 1 or name.endswith(("o.w", "fc2.w")):
        return np.zeros_like(like)
    return rng.standard_normal(like.shape, dtype=np.float32) * np.float32(0.6 * like.shape[1] ** -0.5)


def layers(parameters: Parameters, side: str) -> int:
    """Return how many layers the encoder ("enc") or the decoder ("dec") has."""
    indexes = [name.split(".")[1] for name in parameters if name.startswith(side + ".")]
    return 1 + max(int(index) for index in indexes if index.isdigit())


def _specification(parameters: Parameters) -> Any:
    """The CTranslate2 description of a model with these parameters, its vocabulary still missing."""
    heads = len(parameters["enc.ln.w"]) // HEAD_WIDTH
    encoder_layers, decoder_layers = layers(parameters, "enc"), layers(parameters, "dec")
    spec = whisper_spec.WhisperSpec(encoder_layers, heads, decoder_layers, heads)
    encoder, decoder = spec.encoder, spec.decoder
    for name in ("conv1", "conv2"):
        convolution = getattr(encoder, name)
        convolution.weight, convolution.bias = parameters[f"enc.{name}.w"], parameters[f"enc.{name}.b"]
    encoder.position_encodings.encodings = parameters["enc.pos"]
    _set_norm(encoder.layer_norm, parameters, "enc.ln")
    decoder.embeddings.weight = parameters["dec.emb"]
    decoder.projection.weight = parameters["dec.emb"].copy()  # stored once: optimize() aliases equal weights
    decoder.position_encodings.encodings = parameters["dec.pos"]
    _set_norm(decoder.layer_norm, parameters, "dec.ln")
    for index in range(encoder_layers):
        _set_layer(encoder.layer[index], parameters, f"enc.{index}")
    for index in range(decoder_layers):
        _set_layer(decoder.layer[index], parameters, f"dec.{index}")
    spec.config.suppress_ids, spec.config.suppress_ids_begin = SUPPRESS, SUPPRESS_AT_BEGIN
    spec.config.lang_ids, spec.config.alignment_heads = LANGUAGES, ALIGNMENT_HEADS
    return spec


def _set_layer(layer: Any, parameters: Parameters, prefix: str) -> None:
    _set_norm(layer.self_attention.layer_norm, parameters, f"{prefix}.attn_ln")
    _set_linear(layer.self_attention.linear[0], parameters, f"{prefix}.attn", "q", "k", "v")
    _set_linear(layer.self_attention.linear[1], parameters, f"{prefix}.attn", "o")
    if prefix.startswith("dec"):
        _set_norm(layer.attention.layer_norm, parameters, f"{prefix}.cross_ln")
        _set_linear(layer.attention.linear[0], parameters, f"{prefix}.cross", "q")
        _set_linear(layer.attention.linear[1], parameters, f"{prefix}.cross", "k", "v")
        _set_linear(layer.attention.linear[2], parameters, f"{prefix}.cross", "o")
    _set_norm(layer.ffn.layer_norm, parameters, f"{prefix}.mlp_ln")
    _set_linear(layer.ffn.linear_0, parameters, prefix, "fc1")
    _set_linear(layer.ffn.linear_1, parameters, prefix, "fc2")


def _set_norm(norm: Any, parameters: Parameters, name: str) -> None:
    norm.gamma, norm.beta = parameters[f"{name}.w"], parameters[f"{name}.b"]


def _set_linear(linear: Any, parameters: Parameters, prefix: str, *names: str) -> None:
    """CTranslate2 fuses query, key and value row by row; the key has no bias."""
    weights = [parameters[f"{prefix}.{name}.w"] for name in names]
    biases = [
        parameters.get(f"{prefix}.{name}.b", np.zeros(len(weight), np.float32))
        for name, weight in zip(names, weights, strict=True)
    ]
    linear.weight, linear.bias = np.concatenate(weights), np.concatenate(biases)


def _vocabulary(tokenizer: Path) -> list[str]:
    """The token strings in the order of their ids."""
    content = json.loads(tokenizer.read_text(encoding="utf-8"))
    tokens = [f"<unused{index}>" for index in range(VOCABULARY_SIZE)]
    for token, index in content["model"]["vocab"].items():
        tokens[index] = token
    for added in content["added_tokens"]:
        tokens[added["id"]] = added["content"]
    return tokens
