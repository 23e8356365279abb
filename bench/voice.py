"""espeak-ng, spoken into memory: the library and its voices come in the wheel espeakng-loader.

The library is GPL-3.0-or-later and is loaded by this benchmark only; what it says is not bound by that licence.
"""

from __future__ import annotations

import ctypes
from functools import cache

import espeakng_loader
import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

_RETRIEVAL = 1  # AUDIO_OUTPUT_RETRIEVAL: samples go to our callback, nothing is played
_RATE, _PITCH = 1, 3  # espeak_PARAMETER
_BY_CHARACTER = 1
_UTF8 = 1
_QUIET = 0.012  # of the loudest sample: what lies below at both ends is no speech
_MARGIN_SECONDS = 0.01

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class _Espeak:
    """The library, initialised; one utterance at a time."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.sample_rate: int = self._library.espeak_Initialize(_RETRIEVAL, 0, data, 0)
        if self.sample_rate <= 0:
            raise RuntimeError("espeak-ng does not start")
        self._spoken = bytearray()
        self._callback = _Callback(self._receive)  # kept: the library calls it for as long as it lives
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int | None) -> int:
        if count > 0:  # the last call brings none
            self._spoken += ctypes.string_at(samples, count * ctypes.sizeof(ctypes.c_short))
        return 0

    def say(self, text: str, voice: str, words_per_minute: int, pitch: int) -> Samples:
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice}")
        self._library.espeak_SetParameter(_RATE, words_per_minute, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        self._spoken.clear()
        utf8 = text.encode() + b"\0"
        if self._library.espeak_Synth(utf8, len(utf8), 0, _BY_CHARACTER, 0, _UTF8, None, None) != 0:
            raise RuntimeError(f"espeak-ng does not say {text!r}")
        self._library.espeak_Synchronize()
        return np.frombuffer(bytes(self._spoken), np.int16).astype(np.float32) / np.float32(2**15)


@cache
def _espeak() -> _Espeak:
    return _Espeak()


def sample_rate() -> int:
    """Samples per second of what `say` returns."""
    return _espeak().sample_rate


def say(text: str, voice: str, *, words_per_minute: int = 175, pitch: int = 50) -> Samples:
    """Return the text as spoken by an espeak-ng voice such as "en-us" or "vi+f2": mono, in [-1, 1), trimmed."""
    spoken = _espeak().say(text, voice, words_per_minute, pitch)
    loud = np.flatnonzero(np.abs(spoken) > _QUIET * np.abs(spoken).max())
    margin = int(_MARGIN_SECONDS * sample_rate())
    return spoken[max(0, loud[0] - margin) : loud[-1] + margin]
