import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import jiwer
import psutil
import pytest

from tests.cli.conftest import Run, environment, start
from tests.speech.sounds import encode_channels, read
from v2td.bundled import recordings

pytestmark = pytest.mark.slow  # starts processes that load models or services

AUDIO = {recording.name: recording for recording in recordings()}
ENGLISH, VIETNAMESE, LONG = AUDIO["en-01.flac"], AUDIO["vi-02.ogg"], AUDIO["en-long.ogg"]
DEMO = ("transcribe", "--model", "demo")


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    file = tmp_path / "damaged.ogg"
    file.write_bytes(b"this is no recording")
    return file


async def test_text_on_stdout_and_nothing_on_stderr(v2td: Run) -> None:
    answer = await v2td(*DEMO, ENGLISH.path)
    assert (answer.code, answer.stderr) == (0, "")
    assert answer.stdout.split() == ENGLISH.text.split()


async def test_several_files_in_their_order_and_each_failure_told(v2td: Run, damaged: Path, tmp_path: Path) -> None:
    absent = tmp_path / "absent.wav"
    answer = await v2td(*DEMO, VIETNAMESE.path, damaged, absent, ENGLISH.path)
    assert answer.code == 1
    assert answer.stdout == (f"==> {VIETNAMESE.path} <==\n{VIETNAMESE.text}\n==> {ENGLISH.path} <==\n{ENGLISH.text}\n")
    told = answer.stderr.splitlines()
    assert told[0].startswith(f"{damaged}: not_audio: ")
    assert told[1].startswith(f"{absent}: not_found: ")
    assert len(told) == 2


async def test_every_format_in_a_folder(v2td: Run, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    arguments = ("--output-dir", folder, "--format", "txt,json", "--format", "srt,vtt,tsv,md", "--word-timestamps")
    answer = await v2td(*DEMO, ENGLISH.path, LONG.path, *arguments)
    assert (answer.code, answer.stdout, answer.stderr) == (0, "", "")
    assert {file.name for file in folder.iterdir()} == {
        f"{stem}.{suffix}" for stem in ("en-01", "en-long") for suffix in ("txt", "json", "srt", "vtt", "tsv", "md")
    }
    assert jiwer.wer(LONG.text, (folder / "en-long.txt").read_text().replace("\n", " ")) < 0.12
    transcript = json.loads((folder / "en-01.json").read_text())
    assert (transcript["language"], transcript["model"]) == ("en", "demo")
    assert transcript["duration"] == pytest.approx(ENGLISH.seconds, abs=0.1)
    words = [word for segment in transcript["segments"] for word in segment["words"]]
    assert "".join(word["word"] for word in words).split() == ENGLISH.text.split()
    assert (folder / "en-01.vtt").read_text().startswith("WEBVTT\n")
    starts = [float(line.split("\t")[0]) / 1000 for line in (folder / "en-long.tsv").read_text().splitlines()[1:]]
    assert starts == pytest.approx([segment.start for segment in LONG.segments], abs=0.5)


async def test_a_call_of_two_parties(v2td: Run, tmp_path: Path) -> None:
    parties = [read(recording.path) for recording in (ENGLISH, VIETNAMESE)]
    call = encode_channels(parties, tmp_path / "call.wav")
    answer = await v2td(*DEMO, call, "--channels", "split", "--format", "json")
    assert (answer.code, answer.stderr) == (0, "")
    said: dict[int, list[str]] = {0: [], 1: []}
    for segment in json.loads(answer.stdout)["segments"]:
        said[segment["channel"]] += segment["text"].split()
    assert said == {0: ENGLISH.text.split(), 1: VIETNAMESE.text.split()}
    mono = await v2td(*DEMO, ENGLISH.path, "--channels", "split", "--format", "vtt")
    assert f"<v Channel 0>{ENGLISH.text}\n" in mono.stdout


async def test_a_model_that_is_not_there(v2td: Run, tmp_path: Path) -> None:
    answer = await v2td("transcribe", ENGLISH.path, "--set", f"engine.models_dir={tmp_path}")
    assert (answer.code, answer.stdout) == (1, "")
    assert answer.stderr.startswith("error: engine.model = base: ")
    assert "v2td model pull base" in answer.stderr
    assert "`demo`" in answer.stderr


async def test_a_model_that_does_not_load(v2td: Run, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(bytes(1000))
    (tmp_path / "tokenizer.json").write_text("{}")
    answer = await v2td("transcribe", ENGLISH.path, "--model", tmp_path)
    assert answer.code == 1
    assert answer.stderr.startswith("error: start slot ")
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--format", "doc"), "'doc' is none of txt, json, srt, vtt, tsv, md"),
        (("--format", ","), "name at least one of txt, json, srt, vtt, tsv, md"),
        (("--format", "txt,srt"), "several formats need --output-dir"),
        ((VIETNAMESE.path, "--format", "srt"), "several files as srt need --output-dir"),
        ((ENGLISH.path, "--output-dir", "x"), "more than one file would become en-01.txt"),
        (("--language", "vn"), "unknown language 'vn'"),
        (("--language", "en", "--multilingual"), "leave one of them out"),
        (("--channels", "left"), "split"),
        (("--task", "sing"), "transcribe"),
        (("--beam-size", "0"), "--beam-size"),
    ],
)
async def test_wrong_usage(v2td: Run, arguments: tuple[str | Path, ...], told: str) -> None:
    answer = await v2td(*DEMO, ENGLISH.path, *arguments, COLUMNS="200")
    assert (answer.code, answer.stdout) == (2, "")
    assert told in answer.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_one_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    pcm = tmp_path / "pcm"
    pcm.mkdir()
    settings = ("--set", f"speech.pcm_dir={pcm}", "--set", "pipeline.max_prepared=2")
    process = await start(*DEMO, *[LONG.path] * 40, *settings)
    try:
        async with asyncio.timeout(30):
            while not list(pcm.glob("*/*.pcm")):
                await asyncio.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        process.send_signal(number)
        _, stderr = await asyncio.wait_for(process.communicate(), 15)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 130
    assert b"Traceback" not in stderr
    assert list(pcm.iterdir()) == []
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []


async def test_a_folder_that_cannot_be_written(v2td: Run) -> None:
    answer = await v2td(*DEMO, ENGLISH.path, "--output-dir", "/proc/texts")
    assert answer.code == 1
    assert answer.stderr.startswith("error: write /proc/texts/en-01.txt: ")
    assert len(answer.stderr.splitlines()) == 1


async def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m v2td {' '.join(DEMO)} {ENGLISH.path} {LONG.path} | true; exit ${{PIPESTATUS[0]}}"
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", command, env=environment(), stderr=asyncio.subprocess.PIPE
    )
    _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (1, b"")


async def test_colour_on_terminals_only(v2td: Run) -> None:
    answer = await v2td(*DEMO, os.devnull)
    assert answer.code == 1
    assert "\x1b" not in answer.stdout + answer.stderr
