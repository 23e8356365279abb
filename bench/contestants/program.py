"""Contestants that are told files on stdin and answer with texts on stdout: engine, raw, batched, whisper_cpp."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TextIO

import psutil
import uvloop

from bench.contestants.contestant import ContestError, Heard, ProcessTree, running, tree_cpu_seconds
from bench.corpus import Clip
from v2td import config, logs

START_SECONDS = 120.0
LONGEST_SECONDS = 120.0  # after which a run is given up, and
LONGEST_FACTOR = 3.0  # for each second of audio
READY = "ready"


class Program:
    """One of the programs of this folder, ready."""

    def __init__(self, name: str, tree: ProcessTree) -> None:
        self.name = name
        self._tree = tree

    async def hear(self, clips: Sequence[Clip]) -> Heard:
        """Tell it the files, take its answer: its own clock, which stands still while it prepares."""
        request = [{"name": clip.name, "path": str(clip.path), "language": clip.language} for clip in clips]
        process = self._tree.process
        assert process.stdin is not None
        assert process.stdout is not None
        async with self._tree.watched(), asyncio.timeout(longest_seconds(clips)):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            line = await process.stdout.readline()
        if not line:
            raise ContestError(f"{self.name} gave no answer:\n{self._tree.last_words()}")
        answer = json.loads(line)
        return Heard(
            seconds=max(answer["finished"].values()),
            finished=answer["finished"],
            texts=answer["texts"],
            cpu_seconds=answer["cpu_seconds"],
            peak_rss_bytes=self._tree.peak_rss_bytes,
        )


def longest_seconds(clips: Sequence[Clip]) -> float:
    """Return after how long a run is given up."""
    return LONGEST_SECONDS + LONGEST_FACTOR * sum(clip.seconds for clip in clips)


@asynccontextmanager
async def program(name: str, module: str, arguments: Sequence[str], log: Path) -> AsyncIterator[Program]:
    """Start `module` of this folder and yield it when its models are loaded."""
    command = [sys.executable, "-m", f"bench.contestants.{module}", *arguments]
    async with running(command, log, pipes=True) as tree:
        assert tree.process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = await tree.process.stdout.readline()
        if line.decode().strip() != READY:
            raise ContestError(f"{name} did not become ready:\n{tree.last_words()}")
        yield Program(name, tree)


def claimed_stdout() -> TextIO:
    """The program's side, first of all: whatever else is printed from now on, by children too, goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


class Run:
    """The program's side of one run: its clock and the CPU time of its processes begin when this is made."""

    def __init__(self) -> None:
        self._cpu_before = tree_cpu_seconds(psutil.Process())
        self._began = time.monotonic()
        self._finished: dict[str, float] = {}
        self._texts: dict[str, str] = {}

    def finish(self, name: str, text: str) -> None:
        """The text of a clip is there."""
        self._finished[name] = time.monotonic() - self._began
        self._texts[name] = text

    def answer(self) -> dict[str, Any]:
        """Return what the benchmark is told."""
        cpu_seconds = tree_cpu_seconds(psutil.Process()) - self._cpu_before
        return {"finished": self._finished, "texts": self._texts, "cpu_seconds": cpu_seconds}


async def answer_requests(answers: TextIO, hear: Callable[[list[dict[str, Any]]], Awaitable[Run]]) -> None:
    """The program's side: say that it is ready, then answer each request until stdin ends."""
    print(READY, file=answers, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        run = await hear(json.loads(line))
        print(json.dumps(run.answer()), file=answers, flush=True)


def serve(purpose: str, answer: Callable[[config.Settings, TextIO], Coroutine[Any, Any, None]]) -> None:
    """Run a program of v2td's own rooms until stdin ends; the daemon's own config says how."""
    answers = claimed_stdout()
    parser = argparse.ArgumentParser(description=purpose)
    parser.add_argument("--config", type=Path, required=True)
    settings = config.load(parser.parse_args().config).settings
    logs.configure("warning", "console")
    uvloop.run(answer(settings, answers))
