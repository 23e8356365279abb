"""The receiver in docs/webhooks.md does as it says."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from pathlib import Path

from tests.webhooks.conftest import MakeSettings
from v2td.webhooks.post import open_poster

DOCUMENT = Path(__file__).parents[2] / "docs" / "webhooks.md"


async def test_the_receiver_takes_what_is_signed_and_nothing_else(
    make_settings: MakeSettings, secret: str, tmp_path: Path
) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    program = tmp_path / "receiver.py"
    program.write_text(code)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    receiver = await asyncio.create_subprocess_exec(
        *(sys.executable, str(program)),
        env=os.environ | {"WEBHOOK_SECRET": secret, "PORT": str(port)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert receiver.stdout is not None
    body = '{"type": "transcription.completed", "data": {"id": "018f", "text": "xin chào"}}'
    try:
        async with open_poster(make_settings()) as poster, asyncio.timeout(30):
            while (answer := await poster.post(url, "one", body)).status is None:
                await asyncio.sleep(0.05)
            again = await poster.post(url, "one", body)
            other = await poster.post(url, "two", body)
            assert [each.how for each in (answer, again, other)] == ["delivered"] * 3
            lines = [await receiver.stdout.readline() for _ in range(2)]
        assert lines == ["transcription.completed 018f xin chào\n".encode()] * 2, "repetitions are dropped"
        async with open_poster(make_settings(secret="whsec_" + "b2xk" * 8)) as stranger:
            assert (await stranger.post(url, "three", body)).status == 401
    finally:
        receiver.kill()
        await receiver.wait()
