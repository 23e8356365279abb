"""A recording that is being decoded, as others see it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from v2td.jobs import SAMPLE_RATE, Window
from v2td.speech.decode_worker import Piece
from v2td.speech.holes import punch_hole

BYTES_PER_SAMPLE = 2


class Speech:
    """A recording being decoded; its totals grow until the last window was taken, then they are final.

    `pcm` holds 16 kHz int16 samples, `channels` of them in a frame, and goes away with the context that made this.
    Spans count frames. `audio_seconds` is the recording's length, `speech_seconds` sums over the channels.
    """

    def __init__(self, pcm: Path) -> None:
        self.pcm = pcm
        self.channels = 1
        self.windows: AsyncIterator[Window]
        self.audio_seconds = 0.0
        self.speech_seconds = 0.0
        self.decode_seconds = 0.0  # waiting for the decoder child included
        self.bad_packets = 0  # that do not decode
        self.missing_seconds = 0.0  # holes, and what the container announced beyond the end
        self.edge = 0  # no window that is still to come begins before this sample
        self._unreleased: dict[int, int] = {}  # first sample of each window that was handed out

    @property
    def truncated(self) -> bool:
        """Whether the recording is damaged: not all of it was heard."""
        return self.bad_packets > 0 or self.missing_seconds > 0

    @property
    def damage(self) -> dict[str, float]:
        """What is wrong with it, for `transcriptions.timings`; empty when nothing is."""
        if not self.truncated:
            return {}
        return {"bad_packets": self.bad_packets, "missing_seconds": round(self.missing_seconds, 3)}

    def release(self, window: Window) -> None:
        """Give back the memory of the PCM that no window needs any more; `window` will not be read again."""
        self._unreleased.pop(window.index, None)
        self._give_back()

    def settle(self, edge: int) -> None:
        """Note that no window that is still to come begins before sample `edge`, and give back what lies before."""
        self.edge = edge
        self._give_back()

    def _give_back(self) -> None:
        unneeded = min((self.edge, *self._unreleased.values()))
        if unneeded > 0:  # from the start each time: a decoder that took over from a dead one wrote it again
            with suppress(OSError):  # the job has left, or the disk is read-only: then it is given back with the file
                punch_hole(self.pcm, 0, unneeded * self.channels * BYTES_PER_SAMPLE)

    def hand_out(self, window: Window) -> None:
        """Note that somebody has a window."""
        self._unreleased[window.index] = window.pieces[0].start

    def restart(self) -> None:
        """Note that it is decoded from its start."""
        self.audio_seconds = self.speech_seconds = 0.0
        self.bad_packets = 0
        self.missing_seconds = 0.0
        self.edge = 0

    def count(self, piece: Piece) -> None:
        """Take the totals of a piece."""
        self.audio_seconds = piece.samples / SAMPLE_RATE
        self.speech_seconds += sum(span.length for channel in piece.spans for span in channel) / SAMPLE_RATE
        self.bad_packets = piece.bad_packets
        self.missing_seconds = piece.missing_seconds
