"""The values that travel from stage to stage: small, frozen, and complete.

A `Job` becomes an `Audio` (a file), a `Speech` (PCM with windows), and ends as exactly one `Outcome`:
a `Transcript` or a `Failure`.
"""

from v2td.jobs.coordinates import Coordinates
from v2td.jobs.job import Channels, Headers, Job, Options, Output, Redo, Replay, SourceRecord, Task, options_sha256
from v2td.jobs.outcome import MAX_REASON, Failure, Heard, Outcome, Transcript
from v2td.jobs.sound import SAMPLE_RATE, Audio, Segment, Span, Window, WindowMode, WindowTiming, Word

__all__ = [
    "MAX_REASON",
    "SAMPLE_RATE",
    "Audio",
    "Channels",
    "Coordinates",
    "Failure",
    "Headers",
    "Heard",
    "Job",
    "Options",
    "Outcome",
    "Output",
    "Redo",
    "Replay",
    "Segment",
    "SourceRecord",
    "Span",
    "Task",
    "Transcript",
    "Window",
    "WindowMode",
    "WindowTiming",
    "Word",
    "options_sha256",
]
