"""A web server on loopback over the bundled recordings, and one file that is damaged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from v2td.bundled import recordings

DAMAGED = "damaged.ogg"


@asynccontextmanager
async def webserver() -> AsyncIterator[int]:
    """Serve /NAME of each recording and /damaged.ogg on 127.0.0.1; yields the port."""
    runner = web.AppRunner(_application(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        _, port = runner.addresses[0]
        yield port
    finally:
        await runner.cleanup()


def _application() -> web.Application:
    files = {recording.name: recording.path for recording in recordings()}

    async def get(request: web.Request) -> web.StreamResponse:
        path = files.get(request.match_info["name"])
        if path is None:
            raise web.HTTPNotFound
        return web.FileResponse(path)

    async def get_damaged(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=damaged(), content_type="audio/ogg")

    application = web.Application()
    application.router.add_get(f"/{DAMAGED}", get_damaged)
    application.router.add_get("/{name}", get)
    return application


def damaged() -> bytes:
    """The second half of a recording: without its headers nothing can be decoded."""
    whole = next(recording.path for recording in recordings() if recording.path.suffix == ".ogg").read_bytes()
    return whole[len(whole) // 2 :]
