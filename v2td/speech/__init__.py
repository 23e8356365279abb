"""Decoding and finding speech.

In: an `Audio` file. Out: a `Speech`: a PCM file and, as they are found, windows of at most 30 s, of all channels
mixed or of each on its own; `to_recording` puts the engine's times back. Blocks on the decoder children only, never
the event loop.
"""

from v2td.clock import covered_by_channel, covered_seconds, to_recording
from v2td.speech.decoder import Decoders, decoder_count
from v2td.speech.speech import Speech

__all__ = ["Decoders", "Speech", "covered_by_channel", "covered_seconds", "decoder_count", "to_recording"]
