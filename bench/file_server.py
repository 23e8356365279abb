"""A web server of one folder in a process of its own: `python -m bench.file_server FOLDER` prints its port."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web


@asynccontextmanager
async def file_server(folder: Path) -> AsyncIterator[str]:
    """Serve the files of `folder` and yield the server's URL, without a slash at its end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.file_server", str(folder)), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        process.kill()
        await process.wait()


async def _serve(folder: Path) -> None:
    application = web.Application()
    application.router.add_static("/", folder)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
