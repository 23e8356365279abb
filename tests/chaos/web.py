"""The web server of a world: recordings that the echo daemon takes for so many windows, real ones, and trouble."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from v2td.bundled.recordings import AUDIO

WINDOW_BYTES = 1000  # of an echo recording, for each of its windows


@asynccontextmanager
async def serve() -> AsyncIterator[str]:
    """Yield the server's address, without a slash at its end.

    /echo/WINDOWS, /audio/NAME (bundled recordings), /status/CODE, /flaky/TIMES/NAME (503 that often, then one window).
    """
    asked: Counter[str] = Counter()

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=bytes(int(request.match_info["windows"]) * WINDOW_BYTES))

    async def status(request: web.Request) -> web.Response:
        return web.Response(status=int(request.match_info["code"]))

    async def flaky(request: web.Request) -> web.Response:
        asked[request.path] += 1
        if asked[request.path] <= int(request.match_info["times"]):
            return web.Response(status=503)
        return web.Response(body=bytes(WINDOW_BYTES))

    application = web.Application()
    application.router.add_get("/echo/{windows}", echo)
    application.router.add_get("/status/{code}", status)
    application.router.add_get("/flaky/{times}/{name}", flaky)
    application.router.add_static("/audio/", AUDIO)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
