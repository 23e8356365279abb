"""whisper.cpp in a naive loop over pywhispercpp: a process for each core, one recording after the other.

Processes of one thread, as for `batched`. The weights are the others', in float16, which is how whisper.cpp keeps them
unless it is told to quantize; CTranslate2 has them in int8.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from faster_whisper.audio import decode_audio

from bench.contestants.pooled import serve

BEAM_SIZE = 5

_model: Any = None


def _load(model: str) -> None:
    global _model  # noqa: PLW0603 (a process of a pool keeps what its initializer made in a global)
    library = import_module("pywhispercpp.model")
    # Not 0: beams.
    _model = library.Model(model, params_sampling_strategy=1, redirect_whispercpp_logs_to=None, n_threads=1)


def _transcribe(path: str, language: str) -> str:
    segments = _model.transcribe(
        decode_audio(path),
        language=language,
        beam_search={"beam_size": BEAM_SIZE, "patience": -1.0},
        suppress_nst=True,  # as in faster-whisper
        print_progress=False,
    )
    return " ".join(segment.text.strip() for segment in segments)


if __name__ == "__main__":
    serve(__doc__, _load, _transcribe)
