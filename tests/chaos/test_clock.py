"""The clock that jumps: the wall clock does, in running processes and their children, and no other does."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from tests.chaos import clock

ASK = """
import datetime, subprocess, sys, time
for _ in sys.stdin:
    child = subprocess.check_output(["date", "+%s"])
    print(time.time(), datetime.datetime.now().timestamp(), int(child), time.monotonic(), flush=True)
"""


async def test_the_wall_clock_jumps_and_no_other(tmp_path: Path) -> None:
    jumping = await clock.build(tmp_path)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ASK),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | jumping.environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for seconds in (0.0, 3600.0, -7200.5, 400 * 86400.0, 0.0):
        jumping.jump(seconds)
        process.stdin.write(b"\n")
        *walls, monotonic = map(float, (await process.stdout.readline()).split())
        for wall in walls:
            assert abs(wall - time.time() - seconds) < 2, seconds
        assert abs(monotonic - time.monotonic()) < 2
    process.stdin.close()
    assert await process.wait() == 0
