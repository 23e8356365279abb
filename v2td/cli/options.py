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
FORMATS = ("txt", "json", "srt", "vtt", "tsv", "md")  # config.Format, which is slow to import
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT",
        help=f"{', '.join(FORMATS)}; several with commas or repeated.  [default: txt]",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON object on stdout.")]


def chosen_formats(given: list[str] | None) -> list[str]:
    """Return what --format says, each once; raises BadParameter."""
    chosen = [name for each in given or ["txt"] for name in each.split(",") if name]
    if not chosen:
        raise typer.BadParameter(f"name at least one of {', '.join(FORMATS)}", param_hint="--format")
    for name in chosen:
        if name not in FORMATS:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(FORMATS)}", param_hint="--format")
    return list(dict.fromkeys(chosen))
