"""Profiles: of the loop by pyinstrument, of children by py-spy where it may, else by their own sampler."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from v2td.admin import Form
from v2td.sampling import Place, Samples, Stack

if TYPE_CHECKING:
    from pyinstrument.session import Session

INTERVAL = 0.01
LOOP_INTERVAL = 0.002
SPY_GRACE_SECONDS = 15.0
SPY_OPTIONS = ("--nonblocking", "--idle", "--threads", "--full-filenames")
_SPIED_THREAD = re.compile(r"thread \([^)]*\): MainThread")
_SPIED = re.compile(r"(?P<function>.*) \((?P<file>[^()]*):(?P<line>\d+)\)")
_HARMLESS = re.compile(r"[^\w .,:()/+@=-]")


async def profiled_loop(seconds: float) -> Session:
    """Return what this thread does for so long, all tasks of its loop together."""
    from pyinstrument import Profiler  # noqa: PLC0415 (only who is profiled pays for it)

    profiler = Profiler(interval=LOOP_INTERVAL, async_mode="disabled")
    profiler.start()
    try:
        await asyncio.sleep(seconds)
    finally:
        session = profiler.stop()
    return session


def session_of(samples: Samples, target: str) -> Session:
    """Return samples as pyinstrument has them."""
    from pyinstrument.session import Session  # noqa: PLC0415 (as above)

    each_seconds = samples.seconds / max(1, len(samples.stacks))
    known: dict[Stack, list[str]] = {}
    for stack in samples.stacks:
        if stack not in known:
            known[stack] = [_identifier(place) for place in stack]
    return Session(
        frame_records=[(known[stack], each_seconds) for stack in samples.stacks if stack],
        start_time=0.0,
        duration=samples.seconds,
        min_interval=samples.interval,
        max_interval=samples.interval,
        sample_count=len(samples.stacks),
        start_call_stack=[""],  # no stack begins so: nothing is cut off
        target_description=target,
        cpu_time=0.0,
        sys_path=sys.path,
        sys_prefixes=Session.current_sys_prefixes(),
    )


def rendered(session: Session, form: Form) -> str:
    """Return a session for a browser, for speedscope, or for a terminal; takes up to seconds."""
    from pyinstrument import renderers  # noqa: PLC0415 (as above)

    renderer: renderers.Renderer = renderers.ConsoleRenderer(unicode=True, color=False, show_all=True)
    if form == "html":
        renderer = renderers.HTMLRenderer()
    elif form == "speedscope":
        renderer = renderers.SpeedscopeRenderer()
    return str(renderer.render(session))


async def spied(pid: int, seconds: int) -> Samples | str:
    """Return what py-spy sees of a process without stopping it, or why it sees nothing."""
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if program is None:
        return "py-spy is not installed (the extra `debug`)"
    with tempfile.TemporaryDirectory(prefix="v2td-profile-") as folder:
        file = Path(folder) / "stacks.txt"
        rate = round(1 / INTERVAL)
        arguments = ("record", "--pid", str(pid), "--duration", str(seconds), "--rate", str(rate), "--format", "raw")
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *(program, *arguments, *SPY_OPTIONS, "--output", str(file)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(seconds + SPY_GRACE_SECONDS):
                _, said = await process.communicate()
        except TimeoutError:
            return "py-spy did not end"
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        seen_seconds = min(float(seconds), time.monotonic() - began)  # less where the child died meanwhile
        if process.returncode or not file.exists():
            return (said.decode(errors="replace").strip().splitlines() or ["py-spy failed"])[0][:200]
        lines = (await asyncio.to_thread(file.read_text, encoding="utf-8", errors="replace")).splitlines()
    stacks = tuple(_counted(lines))
    return Samples(stacks, INTERVAL, seen_seconds) if stacks else "py-spy saw nothing of the main thread"


def _counted(lines: Iterable[str]) -> Iterable[Stack]:
    """Yield each stack of the main thread in py-spy's raw format as often as it was seen."""
    for line in lines:
        frames, _, times = line.rpartition(" ")
        thread, *frames_of_it = frames.split(";")
        if _SPIED_THREAD.fullmatch(thread):
            stack = tuple(_place(frame) for frame in frames_of_it)
            for _ in range(int(times)):
                yield stack


def _place(frame: str) -> Place:
    match = _SPIED.fullmatch(frame)
    function, file, line = (match["function"], match["file"], int(match["line"])) if match else (frame, "", 0)
    function, file = (_HARMLESS.sub("?", each[:300].replace("<", "(").replace(">", ")")) for each in (function, file))
    return Place(function, file, line, line)


def _identifier(place: Place) -> str:
    return f"{place.function}\x00{place.file}\x00{place.first_line}\x01l{place.line}"
