"""`v2td transcribe`: on the spot, without Kafka and Postgres; what people try first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from v2td.cli.options import (
    Channels,
    Formats,
    Language,
    Multilingual,
    PreviousText,
    Prompt,
    Task,
    WordTimestamps,
    chosen_formats,
)
from v2td.cli.settings import Config, Overrides, load
from v2td.cli.terminal import console, run_until_signal

if TYPE_CHECKING:
    from rich.progress import Progress

    from v2td.config import Settings
    from v2td.errors import JobError
    from v2td.formats import Document


def transcribe(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Recordings: whatever FFmpeg reads.")],
    *,
    model: Annotated[
        str | None,
        typer.Option("--model", help="A name (base, small, large-v3, turbo, demo…) or a folder.", show_default=False),
    ] = None,
    formats: Formats = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir", "-o", help="Write NAME.FORMAT files there instead of to stdout.", show_default=False
        ),
    ] = None,
    language: Language = None,
    multilingual: Multilingual = False,
    task: Task = "transcribe",
    prompt: Prompt = None,
    condition_on_previous_text: PreviousText = False,
    channels: Channels = "mix",
    word_timestamps: WordTimestamps = False,
    beam_size: Annotated[
        int | None, typer.Option(min=1, max=16, help="Beams; engine.beam_size when not given.", show_default=False)
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Transcribe files here and now with the daemon's own decoders and engine; needs no Kafka and no Postgres.

    The text goes to stdout, or with --output-dir to files. The model `demo`, which v2td brings along, knows
    a few hundred words; `v2td model pull base` brings a real one.

    Example: `v2td transcribe --model demo --format srt --output-dir subtitles call.wav`
    """
    chosen = chosen_formats(formats)
    _check_outputs(files, chosen, output_dir)
    settings = load(config, overrides, engine__model=model).settings
    fields = {
        "language": language,
        "multilingual": multilingual,
        "task": task,
        "prompt": prompt,
        "condition_on_previous_text": condition_on_previous_text,
        "channels": channels,
        "word_timestamps": word_timestamps,
        "beam_size": beam_size,
    }
    failed = run_until_signal(_transcribe(files, fields, settings, _Output(chosen, output_dir, len(files))))
    for path, error in failed.items():
        typer.echo(f"{path}: {error}", err=True)
    raise typer.Exit(1 if failed else 0)


async def _transcribe(
    files: list[Path], fields: dict[str, Any], settings: Settings, output: _Output
) -> dict[Path, JobError]:
    from v2td import logs
    from v2td.errors import JobError
    from v2td.ops.transcribe import Transcriber, options_from, transcribe_all

    try:
        options = options_from(fields, settings)
    except JobError as error:
        raise typer.BadParameter(error.reason) from None
    with _progress_bar() as bar:
        logs.configure("warning", "auto")  # within the bar, so that what it says goes above it
        task = bar.add_task(f"loading the model {settings.engine.model}", total=None, detail="")

        def on_progress() -> None:
            done, known = transcriber.heard_seconds, transcriber.decoded_seconds
            speed = done / max(bar.tasks[0].elapsed or 0.0, 0.1)
            detail = f"{done:.0f} of {known:.0f} s of audio, {speed:.1f}x real time"
            bar.update(task, completed=done, total=known, detail=detail)

        def finished(path: Path, document: Document) -> None:
            with _paused(bar):
                output.write(path, document)

        async with Transcriber(settings, files, on_progress=on_progress) as transcriber:
            bar.reset(task, description="transcribing", total=None)
            return await transcribe_all(transcriber, files, options, finished)


class _Output:
    """Where documents go: to stdout, or into the folder in each format."""

    def __init__(self, formats: list[str], folder: Path | None, files: int) -> None:
        self._formats = formats
        self._folder = folder
        self._named = files > 1 and formats == ["txt"]

    def write(self, path: Path, document: Document) -> None:
        """Write one recording's transcript."""
        from v2td.formats import FORMATS

        for each in self._formats:
            text = FORMATS[each](document)
            if self._folder is None:
                typer.echo(f"==> {path} <==\n{text}" if self._named else text, nl=False)
            else:
                _write(self._folder / f"{path.stem}.{each}", text)


def _write(path: Path, text: str) -> None:
    from v2td.errors import ServiceError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ServiceError(f"write {path}", str(error.strerror), "name another --output-dir") from error


def _check_outputs(files: list[Path], formats: list[str], folder: Path | None) -> None:
    """Refuse what would overwrite or run into each other."""
    if folder is None and len(formats) > 1:
        raise typer.BadParameter("several formats need --output-dir", param_hint="--format")
    if folder is None and len(files) > 1 and formats[0] not in {"txt", "json"}:
        raise typer.BadParameter(f"several files as {formats[0]} need --output-dir", param_hint="--format")
    stems = [file.stem for file in files]
    if folder is not None and len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise typer.BadParameter(f"more than one file would become {twice}.{formats[0]}", param_hint="--output-dir")


def _progress_bar() -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    screen = console()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
        redirect_stdout=False,  # it would send the text to stderr
        disable=not screen.is_terminal,
    )


@contextmanager
def _paused(bar: Progress) -> Iterator[None]:
    """Take the bar off the terminal while the text is written there."""
    bar.stop()
    try:
        yield
    finally:
        bar.start()
