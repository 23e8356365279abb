"""A batch of windows becomes text; runs in the child, made of faster-whisper's own parts.

Windows are encoded one by one on a CPU, whose encoder gains nothing from batches, and together on a GPU; then they
are decoded together, greedily unless beams were asked for. What the gate doubts is decoded again, alone, by
faster-whisper's own loop over a window, with beams and temperature fallback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.audio import pad_or_trim
from faster_whisper.transcribe import get_compression_ratio, get_suppressed_tokens

from v2td.engine import gate, packing
from v2td.engine.batch import ModelRequest, WindowRequest, WindowResult
from v2td.engine.packing import Place
from v2td.engine.second_hearing import hear_missing, hear_whole
from v2td.engine.segments import Segments, our_segment, said, text_of
from v2td.engine.sound import Sound, decoding_options, make_sound, storage, whole
from v2td.errors import ErrorClass, JobError
from v2td.jobs import SAMPLE_RATE

COMPARED_SECONDS = 15.0  # shorter windows are not compared with others
LANGUAGES_TOLD = 5  # the likeliest; the rest is noise
MAX_INITIAL_TIMESTAMP = 50  # in steps of 0.02 s: faster-whisper's one second
ANY_TIMESTAMP = 1500  # a message that shares a window begins anywhere in it


class Recognizer:
    """The model of this process, and what is done with it."""

    def __init__(self, model: WhisperModel, request: ModelRequest, gives_way: Callable[[], bool]) -> None:
        self._model = model
        self._quality = request.quality
        self._usual = gate.Usual(request.quality.doubt_factor)
        self._gap = request.pack_gap_seconds
        self._encodes_together = request.device == "cuda"
        self._gives_way = gives_way

    def transcribe(self, requests: Sequence[WindowRequest]) -> tuple[WindowResult | None, ...]:
        """Return what was heard in each window, in their order.

        On a CPU, windows that are not encoded yet when `gives_way` turns true are left out, all but the first.
        RuntimeError is CTranslate2's; a GPU that is out of memory gets smaller batches before it is raised.
        """
        try:
            return self._transcribe(requests)
        except RuntimeError as error:
            if len(requests) == 1 or "out of memory" not in str(error):
                raise
        half = len(requests) // 2
        return self.transcribe(requests[:half]) + self.transcribe(requests[half:])

    def warm_up(self) -> None:
        """Hear a second of silence: pages are touched, kernels chosen and buffers made before somebody waits."""
        segments, _info = self._model.transcribe(np.zeros(SAMPLE_RATE, np.float32), language="en", temperature=0.0)
        list(segments)

    def _transcribe(self, requests: Sequence[WindowRequest]) -> tuple[WindowResult | None, ...]:
        results: dict[int, WindowResult] = {}
        for group in self._groups(self._sounds(requests)):
            if results and self._gives_way():
                break
            together = self._encode(group)
            for sound in together:
                self._choose_language(sound)
            for sound, heard in zip(together, self._decode(together), strict=True):
                results |= self._results(sound, heard)
        return tuple(results.get(number) for number in range(len(requests)))

    def _sounds(self, requests: Sequence[WindowRequest]) -> list[Sound]:
        packed = [number for number, request in enumerate(requests) if request.mode == "packed"]
        shared = packing.pack([requests[number].seconds for number in packed], self._gap)
        layouts = [
            [Place(packed[place.clip], place.start, place.end) for place in places] for places in shared
        ]  # a parent puts only windows of one language and prompt into a packed batch
        layouts += [[whole(number, request)] for number, request in enumerate(requests) if request.mode != "packed"]
        sounds = []
        for places in layouts:
            # A job that has just left took its PCM with it; the others of that window come again.
            with suppress(FileNotFoundError):
                sounds.append(make_sound(self._model, {each.clip: requests[each.clip] for each in places}, places))
        return sounds

    def _groups(self, sounds: Iterable[Sound]) -> list[list[Sound]]:
        """Return what CTranslate2 can decode in one call: equal prompt lengths, frames and beams."""

        def key(sound: Sound) -> tuple[int, int, int, bool]:
            return len(sound.prompt), sound.request.frames, sound.request.beam_size, sound.is_shared

        return [list(group) for _, group in groupby(sorted(sounds, key=key), key)]

    def _encode(self, sounds: list[Sound]) -> list[Sound]:
        """Return the sounds that are encoded: all, unless these give way."""
        padded = [pad_or_trim(each.features[:, : each.frames], each.request.frames)[None] for each in sounds]
        if self._encodes_together:
            encoded = self._encoder_output(np.concatenate(padded))
            for number, sound in enumerate(sounds):
                sound.encoded = encoded[number : number + 1]
            return sounds
        for number, sound in enumerate(sounds):
            if number > 0 and self._gives_way():
                return sounds[:number]
            sound.encoded = self._encoder_output(padded[number])
        return sounds

    def _encoder_output(self, features: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        # In CPU memory it can be divided and joined; a GPU copies it within a few milliseconds.
        output = self._model.model.encode(storage(features), to_cpu=True)
        if output.dtype == ctranslate2.DataType.bfloat16:  # which NumPy does not know
            output = output.to(ctranslate2.DataType.float32)
        return np.array(output)

    def _choose_language(self, sound: Sound) -> None:
        """Detect the language where it is not known; the encoder's output serves the transcription too."""
        options = sound.request.options
        if not self._model.model.is_multilingual:
            return
        if options.language is None or options.multilingual:
            (found,) = self._model.model.detect_language(storage(sound.encoded))
            known = [(token[2:-2], float(probability)) for token, probability in found]
            if options.languages:
                known = [each for each in known if each[0] in options.languages]
            if not known:
                raise JobError(ErrorClass.BAD_FIELD, f"the model knows none of languages {list(options.languages)}")
            sound.languages = tuple(known[:LANGUAGES_TOLD])
            sound.speak(known[0][0])

    def _decode(self, sounds: list[Sound]) -> list[dict[int, Segments]]:
        """Return for each sound the segments of each of its windows, in seconds of that window."""
        first = sounds[0]
        listeners = [(number, place) for number, sound in enumerate(sounds) for place in sound.places]
        if first.is_shared:
            positions = [packing.positions(place, self._gap) for _, place in listeners]
            width = max(len(own) for own in positions)
            parts = [
                sounds[number].encoded[:, packing.padded(own, width)]
                for (number, _), own in zip(listeners, positions, strict=True)
            ]
            longest = max(place.end - place.start for _, place in listeners)
            max_length = min(self._model.max_length, len(first.prompt) + packing.most_tokens(longest))
        else:
            parts, max_length = [sound.encoded for sound in sounds], self._model.max_length
        results = self._model.model.generate(
            storage(np.concatenate(parts)),
            [sounds[number].prompt for number, _ in listeners],
            beam_size=max(1, first.request.beam_size),
            max_length=max_length,
            return_scores=True,
            return_no_speech_prob=True,
            suppress_blank=True,
            suppress_tokens=get_suppressed_tokens(first.tokenizer, [-1]),
            max_initial_timestamp_index=ANY_TIMESTAMP if first.is_shared else MAX_INITIAL_TIMESTAMP,
        )
        heard: list[dict[int, Segments]] = [{} for _ in sounds]
        for (number, place), result in zip(listeners, results, strict=True):
            segments = self._segments(sounds[number], result)
            heard[number][place.clip] = packing.own_text(segments, place) if first.is_shared else segments
        return heard

    def _segments(self, sound: Sound, result: Any) -> Segments:
        tokens = result.sequences_ids[0]
        # As in faster-whisper's generate_with_fallback, with a length penalty of 1.
        avg_logprob = result.scores[0] * len(tokens) / (len(tokens) + 1)
        if gate.is_silence(result.no_speech_prob, avg_logprob, self._quality):
            return []
        segments, _seek, _single = self._model._split_segments_by_timestamps(  # noqa: SLF001 (no public name)
            tokenizer=sound.tokenizer,
            tokens=tokens,
            time_offset=0.0,
            segment_size=sound.frames,
            segment_duration=sound.frames * self._model.feature_extractor.time_per_frame,
            seek=0,
        )
        if sound.is_shared:  # a lone segment begins where it says, not at the beginning of the window
            begin = sound.tokenizer.timestamp_begin
            for segment in segments:
                if segment["tokens"] and segment["tokens"][0] >= begin:
                    segment["start"] = (segment["tokens"][0] - begin) * self._model.time_precision
        common = {
            "avg_logprob": avg_logprob,
            "no_speech_prob": result.no_speech_prob,
            "compression_ratio": get_compression_ratio(sound.tokenizer.decode(tokens).strip()),
            "temperature": 0.0,
        }
        return [
            segment | common | {"text": text}
            for segment in segments
            if (text := sound.tokenizer.decode(segment["tokens"])).strip() and segment["start"] < segment["end"]
        ]

    def _results(self, sound: Sound, heard: dict[int, Segments]) -> dict[int, WindowResult]:
        """Judge the text of each window, hear doubtful ones again."""
        results = {}
        for number, segments in heard.items():
            request = sound.requests[number]
            if request.options.word_timestamps and segments:
                self._align(sound, segments)
            flags = self._doubts(sound, request, segments)
            if not flags and self._is_unsure(sound, segments):
                flags = (gate.LOGPROB,)
            if flags:
                with suppress(FileNotFoundError):  # its job has just left: nobody waits for the text
                    segments, flags = self._hear_again(sound, request, segments, flags)  # noqa: PLW2901 (what stands)
            results[number] = WindowResult(
                segments=tuple(our_segment(each, request.seconds) for each in segments),
                language=sound.language,
                languages=sound.languages,
                tokens=tuple(token for each in segments for token in each["tokens"]),
                flags=flags,
                redone=bool(flags),
            )
        return results

    def _is_unsure(self, sound: Sound, heard: Segments) -> bool:
        """Whether a long text that was decoded greedily is less sure than most; the mean of a few words says little."""
        if not heard or sound.is_shared or sound.request.seconds < COMPARED_SECONDS:
            return False
        return sound.request.beam_size <= 1 and self._usual.is_exceeded(heard[0]["avg_logprob"])

    def _hear_again(
        self, sound: Sound, request: WindowRequest, first: Segments, flags: tuple[str, ...]
    ) -> tuple[Segments, tuple[str, ...]]:
        """Return the less doubtful of what was heard first and what is heard now, and why it was heard again."""
        alone, heard = sound, first
        if sound.is_shared or request.mode != "full":
            alone = make_sound(self._model, {0: request}, [whole(0, request)], sound.language)
        if flags != (gate.SPARSE,):
            heard = hear_whole(self._model, alone, first, self._quality)
            if len(self._doubts(alone, alone.request, heard)) > len(flags):
                heard = first
        heard = hear_missing(self._model, alone, heard, self._quality)
        return heard, (*flags, gate.FALLBACK) if any(each["temperature"] > 0 for each in heard) else flags

    def _doubts(self, sound: Sound, request: WindowRequest, segments: Segments) -> tuple[str, ...]:
        eot = sound.tokenizer.eot
        return gate.doubts(
            avg_logprob=min((each["avg_logprob"] for each in segments), default=0.0),
            compression_ratio=get_compression_ratio(text_of(segments)),
            tokens=[token for each in segments for token in each["tokens"] if token < eot],
            speech=request.speech(),
            said=said(segments),
            quality=self._quality,
        )

    def _align(self, sound: Sound, segments: Segments) -> None:
        """Give each segment its words."""
        options = decoding_options(self._model, sound.request, sound.tokenizer, self._quality)
        self._model.add_word_timestamps(
            [segments],
            sound.tokenizer,
            storage(sound.encoded),
            sound.frames,
            options.prepend_punctuations,
            options.append_punctuations,
            0.0,
        )
