"""Options that say how a recording is to be transcribed, the same wherever one is named."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Task = Annotated[
    Literal["transcribe", "translate"],
    typer.Option("--task", help="What is wanted: the words as spoken, or in English.", show_default=True),
]
Language = Annotated[
    str | None,
    typer.Option("--language", "-l", metavar="CODE", help="Spoken language (en, vi, …); detected when not given."),
]
Prompt = Annotated[
    str | None, typer.Option("--prompt", metavar="TEXT", help="Text that the model takes as spoken before.")
]
Multilingual = Annotated[bool, typer.Option("--multilingual", help="Detect the language again and again.")]
Channels = Annotated[
    Literal["mix", "split"],
    typer.Option("--channels", help="split: each channel by itself, such as the two parties of a call."),
]
PreviousText = Annotated[
    bool, typer.Option("--condition-on-previous-text", help="Let each window read what the one before said.")
]
WordTimestamps = Annotated[bool, typer.Option("--word-timestamps", help="Keep the times of each word.")]
Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON object on stdout.")]
