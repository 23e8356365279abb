"""faster-whisper's BatchedInferencePipeline in a naive loop: a process for each core, one recording after the other.

Processes of one thread, since that is its best: two threads on one window are 1.8 times as fast as one. With
timestamps, since without them (its default) the bundled model leaves out every other sentence.
"""

from __future__ import annotations

from faster_whisper import BatchedInferencePipeline, WhisperModel

from bench.contestants.pooled import serve

BEAM_SIZE = 5
BATCH_SIZE = 8

_pipeline: BatchedInferencePipeline | None = None


def _load(model: str) -> None:
    global _pipeline  # noqa: PLW0603 (a process of a pool keeps what its initializer made in a global)
    _pipeline = BatchedInferencePipeline(WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=1))


def _transcribe(path: str, language: str) -> str:
    assert _pipeline is not None
    segments, _ = _pipeline.transcribe(
        path, language=language, beam_size=BEAM_SIZE, batch_size=BATCH_SIZE, without_timestamps=False
    )
    return " ".join(segment.text.strip() for segment in segments)


if __name__ == "__main__":
    serve(__doc__, _load, _transcribe)
