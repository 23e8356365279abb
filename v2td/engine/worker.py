"""What runs in a slot: a process that holds the model and transcribes a batch of windows a call."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from v2td.engine.batch import BatchResult, ModelRequest, WindowRequest

if TYPE_CHECKING:
    from v2td.engine.recognizer import Recognizer

_recognizer: Recognizer | None = None


def setup(request: ModelRequest) -> float:
    """Load the model, which lives as long as the process, and let it hear a window; returns the seconds that took."""
    global _recognizer  # noqa: PLW0603 (process lifetime = model lifetime)
    os.environ["OMP_NUM_THREADS"] = str(request.threads)  # read when CTranslate2 is loaded, so before the import
    from faster_whisper import WhisperModel  # noqa: PLC0415
    from tqdm import tqdm  # noqa: PLC0415

    from v2td.engine.recognizer import Recognizer  # noqa: PLC0415

    # faster-whisper makes a (hidden) progress bar, whose default lock is a semaphore that a killed child leaks.
    tqdm.set_lock(threading.RLock())
    model = WhisperModel(
        str(request.path),
        device=request.device,
        device_index=request.device_index,
        compute_type=request.compute_type,
        cpu_threads=request.threads,
        local_files_only=True,
    )
    _recognizer = Recognizer(model, request)
    _recognizer.warm_up()
    start = time.monotonic()
    _recognizer.warm_up()
    seconds = time.monotonic() - start
    gc.collect()
    gc.freeze()  # what was imported and loaded stays: collections need not walk it
    return seconds


def transcribe(batch: Sequence[WindowRequest]) -> BatchResult:
    """Transcribe windows together, with the model of this process."""
    assert _recognizer is not None, "setup() runs first"
    start = time.monotonic()
    results = _recognizer.transcribe(batch)
    return BatchResult(results, start, time.monotonic())
