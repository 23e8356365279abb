"""What runs in a slot: a process that holds the model and transcribes a batch of windows a call."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from v2td import failpoints
from v2td.engine.batch import BatchResult, ModelRequest, WindowRequest
from v2td.engine.placement import take_place

if TYPE_CHECKING:
    from v2td.engine.recognizer import Recognizer

# Of CTranslate2's caching allocator: bins grow by 4 from 4^3 to 4^12 bytes, and at most 1 GiB lies unused (its
# default keeps 200 MB at most, which a batch of ten windows of a large model fills and frees again and again).
GPU_CACHE = "4,3,12,1073741824"

_recognizer: Recognizer | None = None
_asked_to_give_way = threading.Event()


def setup(request: ModelRequest) -> float:
    """Load the model, which lives as long as the process, and let it hear a window; returns the seconds that took."""
    global _recognizer  # noqa: PLW0603 (process lifetime = model lifetime)
    failpoints.arm_child()
    # Python runs it between two calls of CTranslate2, which is where a batch can be cut.
    signal.signal(signal.SIGUSR1, lambda *_: _asked_to_give_way.set())
    take_place(request.place)  # before CTranslate2 is imported, which reads OpenMP's variables
    if request.device == "cuda":
        os.environ.setdefault("CT2_CUDA_ALLOCATOR", "cub_caching")  # the default of newer CUDA knows no bound
        os.environ.setdefault("CT2_CUDA_CACHING_ALLOCATOR_CONFIG", GPU_CACHE)
    from faster_whisper import WhisperModel  # noqa: PLC0415
    from tqdm import tqdm  # noqa: PLC0415

    from v2td.engine.recognizer import Recognizer  # noqa: PLC0415

    # faster-whisper makes a (hidden) progress bar, whose default lock is a semaphore that a killed child leaks.
    tqdm.set_lock(threading.RLock())
    model = WhisperModel(
        str(request.path),
        device=request.device,
        device_index=request.place.device_index,
        compute_type=request.compute_type,
        cpu_threads=request.place.threads,
        local_files_only=True,
    )
    _recognizer = Recognizer(model, request, _asked_to_give_way.is_set)
    _recognizer.warm_up()
    start = time.monotonic()
    _recognizer.warm_up()
    seconds = time.monotonic() - start
    gc.collect()
    gc.freeze()  # what was imported and loaded stays: collections need not walk it
    return seconds


def transcribe(batch: Sequence[WindowRequest]) -> BatchResult:
    """Transcribe windows together, with the model of this process; SIGUSR1 asks it to give way as soon as it can."""
    assert _recognizer is not None, "setup() runs first"
    failpoints.reach_blocking("slot.batch")
    start = time.monotonic()
    try:
        results = _recognizer.transcribe(batch)
    finally:
        _asked_to_give_way.clear()  # not before: a request may be quicker than the batch it is about
    return BatchResult(results, start, time.monotonic())
