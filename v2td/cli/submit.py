"""`v2td submit`: jobs for the daemon, and what became of them."""

from __future__ import annotations

import asyncio
import json as jsonlib
from contextlib import AsyncExitStack, aclosing, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from v2td.cli.options import Channels, Json, Language, Multilingual, PreviousText, Prompt, Task, WordTimestamps
from v2td.cli.settings import Config, Overrides, load
from v2td.cli.terminal import console, run_until_signal

if TYPE_CHECKING:
    from v2td.config import Settings
    from v2td.ops.submit import Prepared, Submitted
    from v2td.store import StoredOutcome


def submit(
    sources: Annotated[
        list[str], typer.Argument(metavar="FILE|URL", help="http, https, s3 or file URLs, or local files.")
    ],
    *,
    job_id: Annotated[
        str | None, typer.Option("--id", help="The job's own name; a random UUID when not given.", show_default=False)
    ] = None,
    language: Language = None,
    multilingual: Multilingual = False,
    task: Task = "transcribe",
    prompt: Prompt = None,
    condition_on_previous_text: PreviousText = False,
    channels: Channels = "mix",
    priority: Annotated[int, typer.Option(min=0, max=9, help="0 is most urgent.")] = 5,
    word_timestamps: WordTimestamps = False,
    provider: Annotated[
        str | None,
        typer.Option(help="Who transcribes: local, a provider or a group; the rules decide when not given."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model to insist on.", show_default=False)] = None,
    topic: Annotated[
        str | None, typer.Option(help="Topic; the first of kafka.topics when not given.", show_default=False)
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the text, and print it.")] = False,
    timeout: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Longest wait.")] = 3600.0,
    json: Json = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Send jobs to the daemon's topic.

    A local file is uploaded to s3.upload_bucket, or named as file:// if it lies below fetch.file_roots. Prints for
    each job the id of its row, topic/partition/offset and its source; with --wait the text, and exit code 1 unless
    all were transcribed.

    Examples: `v2td submit --wait https://example.com/call.wav`,
    `v2td submit s3://recordings/call.wav --language vi`.
    """
    if job_id is not None and len(sources) > 1:
        raise typer.BadParameter("one id cannot name several jobs", param_hint="--id")
    settings = load(config, overrides).settings
    fields = {
        "id": job_id,
        "language": language,
        "multilingual": multilingual,
        "task": task,
        "prompt": prompt,
        "condition_on_previous_text": condition_on_previous_text,
        "channels": channels,
        "priority": priority,
        "word_timestamps": word_timestamps,
        "provider": provider,
        "model": model,
    }
    jobs = [_prepared(source, fields, settings) for source in sources]
    topic = topic or settings.kafka.topics[0]
    submitted, outcomes = run_until_signal(_submit(jobs, topic, settings, timeout if wait else None, json))
    if json:
        report = [_entry(job, outcomes.get(job), waited=wait) for job in submitted]
        typer.echo(jsonlib.dumps({"jobs": report}, ensure_ascii=False))
    elif wait:
        for job in submitted:
            _tell(job, outcomes.get(job), named=len(submitted) > 1)
    if wait and sum(_transcribed(outcome) for outcome in outcomes.values()) < len(submitted):
        raise typer.Exit(1)


def _prepared(source: str, fields: dict[str, Any], settings: Settings) -> Prepared:
    from v2td.errors import JobError
    from v2td.messages import without_secrets
    from v2td.ops.submit import prepare

    try:
        return prepare(source, fields, settings)
    except JobError as error:
        raise typer.BadParameter(f"{without_secrets(source)}: {error.reason}") from None


async def _submit(
    jobs: list[Prepared], topic: str, settings: Settings, wait_seconds: float | None, json: bool
) -> tuple[list[Submitted], dict[Submitted, StoredOutcome]]:
    """Send and, unless `wait_seconds` is None, wait; what has no outcome by then is not in the second value."""
    from v2td.ops.submit import open_reader, send, wait

    outcomes: dict[Submitted, StoredOutcome] = {}
    screen = console()
    async with AsyncExitStack() as stack:
        # Before anything is sent: who cannot wait should know at once.
        reader = None if wait_seconds is None else await stack.enter_async_context(open_reader(settings))
        with screen.status(f"sending to {topic}"):
            submitted = await send(jobs, topic, settings)
        for job in submitted:
            if not json:
                typer.echo(f"{job.row_id}  {_where(job)}  {job.source}", err=reader is not None)
        if reader is not None:
            with screen.status("waiting") as status, suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds), aclosing(wait(reader, submitted)) as found:
                    async for job, outcome in found:
                        outcomes[job] = outcome
                        status.update(f"{len(outcomes)} of {len(submitted)} are done")
    return submitted, outcomes


def _transcribed(outcome: StoredOutcome | None) -> bool:
    from v2td.store import StoredTranscription

    return isinstance(outcome, StoredTranscription)


def _where(job: Submitted) -> str:
    at = job.coordinates
    return f"{at.topic}/{at.partition}/{at.offset}"


def _tell(job: Submitted, outcome: StoredOutcome | None, *, named: bool) -> None:
    """Print the text on stdout, or on stderr why there is none."""
    from v2td.store import StoredFailure

    if outcome is None:
        typer.echo(f"{job.source}: not done yet; look for {job.row_id}", err=True)
    elif isinstance(outcome, StoredFailure):
        typer.echo(f"{job.source}: {outcome.error_class}: {outcome.reason}", err=True)
    else:
        typer.echo(f"==> {job.source} <==\n{outcome.text}" if named else outcome.text)


def _entry(job: Submitted, outcome: StoredOutcome | None, *, waited: bool) -> dict[str, Any]:
    from v2td.store import StoredFailure

    at = job.coordinates
    entry: dict[str, Any] = {
        "source": job.source,
        "audio_url": job.audio_url,
        "id": job.job_id,
        "row_id": str(job.row_id),
        "topic": at.topic,
        "partition": at.partition,
        "offset": at.offset,
    }
    if outcome is None:
        return entry | {"state": "waiting" if waited else "sent"}
    if isinstance(outcome, StoredFailure):
        return entry | {"state": "failed", "error_class": outcome.error_class, "reason": outcome.reason}
    return entry | {
        "state": "transcribed",
        "text": outcome.text,
        "language": outcome.language,
        "audio_seconds": outcome.audio_seconds,
        "seconds": outcome.duration,
    }
