"""Model folders of every shape that Whisper comes in, each made in a second from the bundled weights.

The vocabularies are Whisper's own, with the special ids where each shape has them:

* multilingual: 51865 ids, as bundled.
* english: 51864 ids, which CTranslate2 takes for an English-only model. One text token fewer, so every special id is
  one lower, and `<|nospeech|>` bears its older name `<|nocaptions|>`, both as in tiny.en … medium.en. What differs
  from the real ones: the text tokens are the multilingual ones, not GPT-2's, so the same text has other ids there.
* v3: 51866 ids, as in large-v3: the language `<|yue|>` comes in front of `<|translate|>`; what follows is one higher.

Mel bands other than 80 are led back to 80 by a linear map inside the first convolution, fitted on the bundled
recordings. The English-only model is never given a language or a task: its start token carries them, at the task
token's position. Encoder layers can be added without a change of the text; of the decoder's four, two suffice.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from faster_whisper.audio import decode_audio
from faster_whisper.feature_extractor import FeatureExtractor

from v2td.bundled import expand, recordings
from v2td.bundled.model import DATA

Vocabulary = Literal["multilingual", "english", "v3"]
Alignment = Literal["trained", "default", "missing"]

TRAINED_BANDS = 80
LAST_TEXT_ID = 50256  # an empty string, which no text needs and no training saw
START_ID, ENGLISH_ID, NO_SPEECH_ID = 50258, 50259, 50362
NEW = -1  # stands for <|yue|> where ids of the bundled model are listed


@dataclass(frozen=True, slots=True)
class Shape:
    """What tells one Whisper from another; `speaks` when the small model still says the right text in this shape.

    `alignment`: "default" lists all heads of the upper half of the decoder, which is what CTranslate2's converter
    writes for a model that it does not know; "missing" is what its older versions wrote.
    """

    name: str
    vocabulary: Vocabulary = "multilingual"
    mel_bands: int = TRAINED_BANDS
    encoder_layers: int = 2
    decoder_layers: int = 4
    alignment: Alignment = "trained"
    speaks: bool = True

    @property
    def is_multilingual(self) -> bool:
        return self.vocabulary != "english"


SHAPES = (
    Shape("multilingual"),
    Shape("english", "english"),
    Shape("large-v3", "v3", mel_bands=128),
    Shape("turbo", "v3", mel_bands=128, encoder_layers=8, alignment="default"),
    Shape("distilled", decoder_layers=2, alignment="default"),
    Shape("distilled-english", "english", decoder_layers=1, alignment="default", speaks=False),
    Shape("no-alignment-heads", alignment="missing"),
)


def write_shape(folder: Path, shape: Shape) -> Path:
    """Write the files of such a model, as CTranslate2's converter would have, into an existing folder; return it."""
    old_ids = _old_ids(shape.vocabulary)
    tokenizer = _tokenizer(old_ids)
    spec = expand._specification(_parameters(shape, old_ids))
    _configure(spec.config, shape, old_ids)
    spec.register_vocabulary(_strings(tokenizer))
    spec.validate()
    spec.optimize(quantization="int8")
    spec.save(str(folder))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    front_end = {**expand.FRONT_END, "feature_size": shape.mel_bands}
    (folder / "preprocessor_config.json").write_text(json.dumps(front_end), encoding="utf-8")
    return folder


def _old_ids(vocabulary: Vocabulary) -> list[int]:
    """For each id of the vocabulary the one that the token has in the bundled model."""
    ids = list(range(expand.VOCABULARY_SIZE))
    if vocabulary == "english":
        ids.remove(LAST_TEXT_ID)
    elif vocabulary == "v3":
        ids.insert(expand.TRANSLATE, NEW)
    return ids


def _tokenizer(old_ids: list[int]) -> dict[str, Any]:
    """The content of tokenizer.json."""
    content: dict[str, Any] = json.loads((DATA / "tokenizer.json").read_text(encoding="utf-8"))
    special = {each["id"]: each for each in content["added_tokens"]}
    special[NEW] = {**special[START_ID], "content": "<|yue|>"}
    if LAST_TEXT_ID not in old_ids:
        del content["model"]["vocab"][""]
        special[NO_SPEECH_ID]["content"] = "<|nocaptions|>"
    content["added_tokens"] = [{**special[old], "id": new} for new, old in enumerate(old_ids) if old in special]
    return content


def _strings(tokenizer: dict[str, Any]) -> list[str]:
    text: dict[str, int] = tokenizer["model"]["vocab"]
    return [*sorted(text, key=text.__getitem__), *(each["content"] for each in tokenizer["added_tokens"])]


def _configure(config: Any, shape: Shape, old_ids: list[int]) -> None:
    """What config.json says."""
    config.suppress_ids, config.suppress_ids_begin = (
        [old_ids.index(each) for each in listed] for listed in (expand.SUPPRESS, expand.SUPPRESS_AT_BEGIN)
    )
    config.lang_ids = list(range(old_ids.index(expand.LANGUAGES[0]), old_ids.index(expand.TRANSLATE)))
    if shape.alignment == "missing":
        del config.alignment_heads
    elif shape.alignment == "default":
        upper = range(shape.decoder_layers // 2, shape.decoder_layers)
        config.alignment_heads = [[layer, head] for layer in upper for head in range(2)]


def _parameters(shape: Shape, old_ids: list[int]) -> expand.Parameters:
    parameters = expand._load(DATA / "weights.npz")
    parameters = expand._widen(parameters, 128, shape.encoder_layers, shape.decoder_layers)
    surplus = tuple(f"dec.{index}." for index in range(shape.decoder_layers, 4))
    parameters = {name: values for name, values in parameters.items() if not name.startswith(surplus or "none")}
    parameters["dec.emb"] = parameters["dec.emb"][[LAST_TEXT_ID if old == NEW else old for old in old_ids]]
    if not shape.is_multilingual:
        _start_with_task(parameters, old_ids)
    if shape.mel_bands != TRAINED_BANDS:
        _hear(parameters, shape.mel_bands)
    return parameters


def _start_with_task(parameters: expand.Parameters, old_ids: list[int]) -> None:
    """Have the start token stand for <|startoftranscript|> <|en|> <|transcribe|>."""
    tokens, positions = parameters["dec.emb"], parameters["dec.pos"]
    said = [old_ids.index(each) for each in (START_ID, ENGLISH_ID, expand.TRANSCRIBE)]
    before_last = len(said) - 1
    tokens[said[0]] = tokens[said].sum(axis=0) + positions[:before_last].sum(axis=0)
    positions[:-before_last] = positions[before_last:].copy()


def _hear(parameters: expand.Parameters, bands: int) -> None:
    """Have the first convolution take so many mel bands: a ridge regression makes the trained 80 of them."""
    clips = [decode_audio(str(each.path)) for each in recordings() if each.seconds < 60]
    given, wanted = (
        np.concatenate([FeatureExtractor(feature_size=size)(clip) for clip in clips], axis=1)
        for size in (bands, TRAINED_BANDS)
    )
    given = np.concatenate([given, np.ones((1, given.shape[1]), np.float32)])
    weights = np.linalg.solve(given @ given.T + np.eye(bands + 1), given @ wanted.T)
    kernel = parameters["enc.conv1.w"]
    parameters["enc.conv1.w"] = np.einsum("obt,gb->ogt", kernel, weights[:-1]).astype(np.float32)
    parameters["enc.conv1.b"] = parameters["enc.conv1.b"] + np.einsum("obt,b->o", kernel, weights[-1])
