"""The settings of what costs the most: speech, windows, models, and when a text is doubted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from v2td.config.values import AbsolutePath, Count, Processes, Seconds, Section, Text
from v2td.jobs import WindowMode


class SpeechSettings(Section):
    """Decoding, voice activity, windows."""

    decoders: Processes = Field(0, description="Decoder processes; 0: one for each four slots.")
    pcm_dir: AbsolutePath = Field(
        Path("/dev/shm"),  # noqa: S108 (files there are created with O_EXCL in a folder of our own)
        description="Where decoded PCM (16 kHz, int16) is mapped; best a tmpfs.",
    )
    max_audio_seconds: Seconds = Field(21_600, description="Longest recording.")
    min_sample_rate: Annotated[int, Field(ge=1)] = Field(
        4_000, description="Lowest sample rate in Hz: at 1 Hz, 32 kB would be nine hours."
    )
    max_sample_rate: Annotated[int, Field(ge=1)] = Field(384_000, description="Highest sample rate in Hz.")
    max_channels: Annotated[int, Field(ge=1, le=64)] = Field(
        8, description="Most channels; each takes memory and, when transcribed by itself, time."
    )
    piece_seconds: Annotated[float, Field(ge=60, le=600)] = Field(
        120,
        description="Audio that is decoded and searched for speech at a time; its windows are released at once.",
    )
    window_seconds: Annotated[float, Field(ge=5, le=30)] = Field(30, description="Longest window.")
    vad_threshold: Annotated[float, Field(gt=0, lt=1)] = Field(0.5, description="Speech probability of Silero VAD.")
    min_speech_seconds: Annotated[float, Field(ge=0)] = Field(0.1, description="Shorter sounds are no speech.")
    min_silence_seconds: Seconds = Field(
        0.2, description="Shorter pauses do not divide speech; a window ends at the longest pause of its last sixth."
    )
    pad_seconds: Annotated[float, Field(ge=0, le=2)] = Field(0.3, description="Silence kept on both sides of speech.")
    deadline_seconds: Seconds = Field(60, description="A decoder that is silent for longer on one piece is killed.")
    truncated: Literal["accept", "fail"] = Field(
        "accept", description="A damaged recording: keep what could be decoded and say so, or fail it."
    )
    jail: Literal["available", "required", "off"] = Field(
        "available",
        description="Decoders give up network, programs and all files but recordings: as far as this machine has the "
        "means (`v2td check` tells), or v2td does not start without, or not at all.",
    )
    decoder_memory_bytes: Annotated[int, Field(ge=268_435_456)] = Field(
        2_147_483_648,
        description="Memory that a decoder may map beyond its libraries, for all recordings it has open; a file that "
        "makes it want more fails. A recording takes 10 to 150 MB, with pieces of 600 s and eight channels 600 MB.",
    )
    decoder_cpu_seconds: Seconds = Field(
        60, description="CPU time of one piece, on all cores; more ends the decoder. A piece takes about 1 s."
    )
    decoder_files: Annotated[int, Field(ge=64)] = Field(
        4096, description="Files that a decoder may have open; a recording takes two."
    )


class EngineSettings(Section):
    """The model and the processes that hold it."""

    model: Text = Field("base", description="Whisper model: a name (WHISPER_MODEL_SIZE), `demo`, or a folder's path.")
    models_dir: AbsolutePath | None = Field(
        None, description="Where named models lie; the service's state folder or the user's cache when unset."
    )
    model_manifest: AbsolutePath | None = Field(
        None,
        description="SHA-256 sums (as `sha256sum *` prints them) that the files of the model must have, or v2td does "
        "not start; the SHA256SUMS in its folder, which `v2td model pull` writes, when unset.",
    )
    offline: bool = Field(
        False, description="Refuse `v2td model pull`, too; nothing else ever asks the hub for a model."
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="Where inference runs (WHISPER_DEVICE).")
    compute_type: Literal["default", "auto", "int8", "int8_float16", "int16", "float16", "bfloat16", "float32"] = Field(
        "int8", description="Precision of the weights (WHISPER_COMPUTE_TYPE)."
    )
    slots: Processes = Field(
        0,
        description="Processes that hold the model (STT_MAX_WORKERS); 0: as many as the machine has room for.",
    )
    threads: Processes = Field(0, description="Threads of a slot; 0: planned from the CPUs.")
    cpus: tuple[Annotated[int, Field(ge=0)], ...] = Field((), description="CPUs to pin slots to; empty: planned.")
    reserved_cpus: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Cores left to the loop and the decoders; unset: planned."
    )
    beam_size: Annotated[int, Field(ge=0, le=16)] = Field(
        0,
        description="Beams where a message does not say; 0: greedy first, beams only for windows that look doubtful.",
    )
    batch_windows: Annotated[int, Field(ge=0, le=64)] = Field(
        0, description="Windows decoded together at most; 0: 8 on a CPU, 10 on a GPU."
    )
    batch_seconds_max: Seconds = Field(
        15, description="Expected time of a batch at most: the longest that a free slot lets a new message wait."
    )
    oldest_share: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.2, description="Share of the windows that goes to the job which has waited longest, so that none starves."
    )
    queue_bytes_max: Annotated[int, Field(ge=0)] = Field(
        0, description="PCM of waiting windows at most; decoders pause beyond it. 0: two batches for each slot."
    )
    window_mode: WindowMode = Field(
        "full",
        description="full: every window padded to 30 s; packed: short messages share windows; short: unpadded "
        "windows, for models adapted to them.",
    )
    pack_gap_seconds: Annotated[float, Field(ge=0.2, le=5)] = Field(
        0.6, description="Silence between messages that share a window."
    )
    pack_linger_seconds: Annotated[float, Field(ge=0, le=5)] = Field(
        0.25, description="How long a shared window may wait for messages that are being decoded."
    )
    default_language: Annotated[str, Field(pattern="^[a-z]{2,3}$", examples=["vi"])] | None = Field(
        None, description="Language where a message does not say; unset: detected."
    )
    window_seconds_base: Seconds = Field(
        60,
        description="Deadline of a window: this many seconds, and as many for each second of its audio as below.",
    )
    window_seconds_factor: Seconds = Field(20, description="Seconds of deadline for each second of audio.")
    load_seconds: Seconds = Field(300, description="Longest model load.")
    max_rss_bytes: Annotated[int, Field(ge=0)] = Field(
        0, description="A slot whose process grows beyond is recycled between two batches; 0: never."
    )
    max_windows: Annotated[int, Field(ge=0)] = Field(
        0, description="A slot is recycled after so many windows, between two batches; 0: never."
    )
    unload_seconds: Annotated[float, Field(ge=0)] = Field(
        0, description="A slot without work for so long gives its model's memory back, and loads it again; 0: never."
    )


class QualitySettings(Section):
    """When a window looks doubtful and is decoded again, alone, with beams and temperature fallback."""

    redo_beam_size: Annotated[int, Field(ge=1, le=16)] = Field(5, description="Beams for doubtful windows.")
    doubt_logprob: Annotated[float, Field(ge=-10, le=0)] = Field(
        -0.7, description="A mean log-probability of the greedy text below this is doubtful."
    )
    doubt_factor: Annotated[float, Field(ge=1)] = Field(
        2.5,
        description="A greedy text of over 15 s of sound is doubtful when its mean log-probability is so many times "
        "below the median of the last hundred.",
    )
    logprob_min: Annotated[float, Field(ge=-10, le=0)] = Field(
        -1.0, description="A mean log-probability below this calls for the next temperature (log_prob_threshold)."
    )
    compression_ratio_max: Annotated[float, Field(gt=1)] = Field(
        2.4, description="Text that zips better than this repeats itself (compression_ratio_threshold)."
    )
    no_speech_min: Annotated[float, Field(gt=0, le=1)] = Field(
        0.6, description="Above this, and with a low log-probability, a window is silence (no_speech_threshold)."
    )
    uncovered_seconds: Seconds = Field(
        1.0, description="So much speech, as the VAD hears it, without text is doubtful."
    )
    repeats_max: Count = Field(4, description="The same words more often than this in a row are doubtful.")
