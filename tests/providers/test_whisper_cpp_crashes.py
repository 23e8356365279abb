"""A child of whisper.cpp that dies, hangs or does not come up: nobody but its own window notices."""

import asyncio
import os
import signal
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests import living
from tests.living import lives
from tests.providers.hearing import Told, decoding, text_of
from tests.speech.sounds import bundled
from v2td.bundled import ggml_file
from v2td.config import WhisperCppSettings
from v2td.errors import ErrorClass, JobError, ProviderFailedError, ServiceError
from v2td.jobs import Heard, Options
from v2td.providers import Recording
from v2td.providers import whisper_cpp_worker as worker
from v2td.providers.whisper_cpp import WhisperCppChild
from v2td.providers.whisper_cpp_worker import WindowRequest, WindowSound

pytestmark = pytest.mark.slow  # starts processes that load models

EN, VI = bundled("en-01.flac"), bundled("vi-01.flac")
ENGLISH = Options(language="en")


@pytest.fixture
async def provider() -> AsyncIterator[WhisperCppChild]:
    async with WhisperCppChild(WhisperCppSettings(name="cpp", model=ggml_file(), threads=1)) as provider:
        yield provider


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)


def freeze(provider: WhisperCppChild) -> int:
    """Stop the process, so that a call stays under way until something is done about it."""
    assert provider.pid is not None
    living.freeze(provider.pid)
    return provider.pid


@asynccontextmanager
async def under_way(provider: WhisperCppChild, recording: Recording) -> AsyncIterator[asyncio.Task[Heard]]:
    """A job of which the process has a window."""
    calling = asyncio.Event()

    def on_progress() -> None:
        recording.on_progress()
        calling.set()

    job = asyncio.create_task(provider.transcribe(replace(recording, on_progress=on_progress)))
    await asyncio.wait_for(calling.wait(), 30)
    await asyncio.sleep(0.05)  # the call follows at once
    try:
        yield job
    finally:
        job.cancel()
        await asyncio.wait({job})


async def test_a_window_whose_process_is_killed_is_heard_by_the_next(provider: WhisperCppChild, tmp_path: Path) -> None:
    async with decoding(tmp_path, EN.path, ENGLISH, told := Told()) as recording:
        frozen = freeze(provider)
        async with under_way(provider, recording) as job:
            os.kill(frozen, signal.SIGKILL)
            assert text_of(await asyncio.wait_for(job, 30)) == EN.text
    assert provider.pid not in (None, frozen)
    assert told.deaths == 0


async def test_a_window_that_ends_two_processes_is_told_so_and_fails_here_alone(
    provider: WhisperCppChild, tmp_path: Path
) -> None:
    async with decoding(tmp_path, EN.path, ENGLISH, told := Told()) as recording:
        frozen = freeze(provider)
        async with under_way(provider, recording) as job:
            os.kill(frozen, signal.SIGKILL)
            await until(lambda: provider.pid not in (None, frozen))
            os.kill(provider.pid or 0, signal.SIGKILL)
            with pytest.raises(ProviderFailedError, match="died 2 times on window 0"):
                await asyncio.wait_for(job, 30)
    assert told.deaths == 1
    async with decoding(tmp_path, VI.path, Options(language="vi")) as recording:
        assert text_of(await provider.transcribe(recording)) == VI.text


async def test_what_the_job_is_to_end_with_is_said_by_who_counts_its_deaths(
    provider: WhisperCppChild, tmp_path: Path
) -> None:
    def poison() -> None:
        raise JobError(ErrorClass.POISON, "three processes died of it")

    async with decoding(tmp_path, EN.path, ENGLISH) as recording:
        frozen = freeze(provider)
        async with under_way(provider, replace(recording, on_death=poison)) as job:
            os.kill(frozen, signal.SIGKILL)
            await until(lambda: provider.pid not in (None, frozen))
            os.kill(provider.pid or 0, signal.SIGKILL)
            with pytest.raises(JobError, match="three processes") as caught:
                await asyncio.wait_for(job, 30)
    assert caught.value.error_class is ErrorClass.POISON


async def test_a_window_that_takes_too_long_is_ended_with_its_process(tmp_path: Path) -> None:
    settings = WhisperCppSettings(name="cpp", model=ggml_file(), threads=1, window_seconds=1)
    async with WhisperCppChild(settings) as provider:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("v2td.child.STOPPED_LOOKS", 1000)  # else it is found to be stopped before
            async with decoding(tmp_path, EN.path, ENGLISH, told := Told()) as recording:
                frozen = psutil.Process(freeze(provider))
                with pytest.raises(ProviderFailedError, match=r"window 0 took longer than 1 s"):
                    await provider.transcribe(recording)
        await until(lambda: not lives(frozen))
        assert told.deaths == 0


async def test_a_stopped_process_is_replaced(provider: WhisperCppChild, tmp_path: Path) -> None:
    async with decoding(tmp_path, EN.path, ENGLISH, told := Told()) as recording:
        frozen = freeze(provider)
        assert text_of(await provider.transcribe(recording)) == EN.text
    assert provider.pid != frozen
    assert told.deaths == 0


async def test_cancellation_stops_the_window_and_its_process_hears_the_next(tmp_path: Path) -> None:
    async with WhisperCppChild(WhisperCppSettings(name="cpp", model=ggml_file("base"), threads=1)) as provider:
        before = provider.pid
        async with (
            decoding(tmp_path, bundled("en-long.ogg").path, ENGLISH, told := Told()) as recording,
            under_way(provider, recording) as job,
        ):
            job.cancel()
            with pytest.raises(asyncio.CancelledError):
                await job
        async with decoding(tmp_path, VI.path, Options(language="vi")) as recording:
            assert text_of(await provider.transcribe(recording)) == VI.text
        assert provider.pid == before
        assert told.done == []


async def test_a_window_is_stopped_by_a_signal_and_one_that_was_not_meant_is_heard_again(
    provider: WhisperCppChild, tmp_path: Path
) -> None:
    async with decoding(tmp_path, bundled("en-long.ogg").path, ENGLISH) as recording:
        window = await anext(recording.windows)
        sound = WindowSound(recording.pcm, 1, window)
        request = WindowRequest(sound, "transcribe", "en", 8, "", word_timestamps=False)
        call = asyncio.create_task(provider._child.call(worker.hear, request, deadline_seconds=60))
        await asyncio.sleep(0.2)
        while not call.done():
            os.kill(provider.pid or 0, signal.SIGUSR1)
            await asyncio.sleep(0.01)
        with pytest.raises(InterruptedError):
            await call
    async with (
        decoding(tmp_path, bundled("en-04.ogg").path, ENGLISH) as recording,
        under_way(provider, recording) as job,
    ):
        os.kill(provider.pid or 0, signal.SIGUSR1)
        assert text_of(await job) == bundled("en-04.ogg").text


async def test_urgent_jobs_get_the_next_window(provider: WhisperCppChild, tmp_path: Path) -> None:
    order: list[str] = []

    async def hear(name: str, recording: Recording) -> None:
        await provider.transcribe(recording)
        order.append(name)

    async with (
        decoding(tmp_path, EN.path, ENGLISH, priority=5) as first,
        decoding(tmp_path, VI.path, ENGLISH, priority=9) as batch,
        decoding(tmp_path, EN.path, ENGLISH, priority=0) as urgent,
        asyncio.TaskGroup() as group,
    ):
        frozen = freeze(provider)
        for name, recording in (("first", first), ("batch", batch), ("urgent", urgent)):
            group.create_task(hear(name, recording))
            await asyncio.sleep(0.3)  # its first window is decoded, and it waits
        os.kill(frozen, signal.SIGCONT)
    assert order == ["first", "urgent", "batch"]


async def test_pcm_that_is_gone_is_no_fault_of_the_provider(provider: WhisperCppChild, tmp_path: Path) -> None:
    async with decoding(tmp_path, EN.path, ENGLISH) as recording:
        with pytest.raises(JobError, match="PCM is gone") as caught:
            await provider.transcribe(replace(recording, pcm=tmp_path / "gone.pcm"))
    assert caught.value.error_class is ErrorClass.INFERENCE_CRASH


async def test_an_idle_process_that_dies_is_found_missing_and_replaced(provider: WhisperCppChild) -> None:
    assert await provider.health() is None
    before = provider.pid
    os.kill(before or 0, signal.SIGKILL)
    await until(lambda: not psutil.pid_exists(before or 0) or not lives(psutil.Process(before)))
    assert await provider.health() is None  # nothing says that it cannot come up again
    await until(lambda: provider.pid not in (None, before))


async def test_a_model_that_went_away_makes_it_ill_until_it_is_there_again(tmp_path: Path) -> None:
    model = tmp_path / "model.bin"
    model.write_bytes(ggml_file().read_bytes())
    async with WhisperCppChild(WhisperCppSettings(name="cpp", model=model, threads=1)) as provider:
        content = model.read_bytes()
        model.unlink()
        os.kill(provider.pid or 0, signal.SIGKILL)
        async with decoding(tmp_path, EN.path, ENGLISH) as recording:
            with pytest.raises(ProviderFailedError, match=str(model)):
                await provider.transcribe(recording)
        assert str(model) in (await provider.health() or "")
        model.write_bytes(content)
        async with asyncio.timeout(60):
            while await provider.health() is not None:
                await asyncio.sleep(0.1)
        async with decoding(tmp_path, EN.path, ENGLISH) as recording:
            assert text_of(await provider.transcribe(recording)) == EN.text


async def test_a_model_that_was_exchanged_is_known_as_another_once_it_is_loaded(tmp_path: Path) -> None:
    model = tmp_path / "model.bin"
    model.write_bytes(ggml_file().read_bytes())
    async with WhisperCppChild(WhisperCppSettings(name="cpp", model=model, threads=1)) as provider:
        before = provider.fingerprint
        model.unlink()
        model.write_bytes(ggml_file("tiny").read_bytes())
        assert provider.fingerprint == before, "what it hears with"
        os.kill(provider.pid or 0, signal.SIGKILL)
        async with decoding(tmp_path, EN.path, ENGLISH) as recording:
            assert text_of(await provider.transcribe(recording)) == EN.text
        assert provider.fingerprint != before


async def starts(model: Path) -> str:
    with pytest.raises(ServiceError) as caught:
        async with WhisperCppChild(WhisperCppSettings(name="cpp", model=model, threads=1)):
            pass
    return str(caught.value)


async def test_a_bad_model_is_named_at_the_start(tmp_path: Path) -> None:
    whole = ggml_file().read_bytes()
    model = tmp_path / "model.bin"
    for content, said in (
        (b"", "cut off"),
        (b"nonsense" * 100, "no GGML file"),
        (whole[:1000], "cut off"),
        (whole[: len(whole) // 2], "cut off"),  # which whisper.cpp itself would take
        (whole[:-1], "cut off"),
        (whole + b"rest", "cut off"),
        (struct.pack("<2i", 0x67676D6C, 100) + whole[8:], "it has 100 tokens"),
    ):
        model.write_bytes(content)
        error = await starts(model)
        assert error.startswith(f"load {model}: ")
        assert said in error
    model.unlink()
    assert await starts(model) == (
        f"load {model}: No such file or directory "
        "(give providers.whisper_cpp.model a whole GGML file, such as ggml-large-v3.bin of whisper.cpp)"
    )


async def test_a_model_that_aborts_the_whole_process_is_named_at_the_start(tmp_path: Path) -> None:
    """A tensor of another type than whisper.cpp expects: GGML_ASSERT in the middle of the first window."""
    whole = ggml_file().read_bytes()
    name = b"encoder.conv1.bias"
    place = whole.index(name)
    head = struct.unpack("<5i", whole[place - 20 : place])
    assert head[:3] == (2, len(name), 0), "two dimensions, in float32"
    values = whole[place + len(name) : place + len(name) + 4 * 128]
    as_half = struct.pack("<128e", *struct.unpack("<128f", values))
    model = tmp_path / "model.bin"
    model.write_bytes(
        whole[: place - 20]
        + struct.pack("<5i", 2, len(name), 1, *head[3:])
        + name
        + as_half
        + whole[place + len(name) + 4 * 128 :]
    )
    error = await starts(model)
    assert error.startswith(f"load {model}: ")
