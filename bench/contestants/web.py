"""A web server of recordings that remembers when it was first asked: that is when a consumer had its first message."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web


class Site:
    """The files for one consumer, and when it first asked for one."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._files: dict[str, Path] = {}
        self.first_request: float | None = None  # time.monotonic()

    def serve(self, paths: Iterable[Path]) -> None:
        """Serve these and no others, and forget the first request."""
        self._files = {path.name: path for path in paths}
        self.first_request = None

    def url(self, path: Path) -> str:
        """Return where a file is served."""
        return f"{self._base_url}/{path.name}"

    def requested(self, name: str) -> Path | None:
        """Note a request; returns the file that was asked for, if there is one."""
        if self.first_request is None:
            self.first_request = time.monotonic()
        return self._files.get(name)


class WebServer:
    """Sites of different consumers, on one port."""

    def __init__(self) -> None:
        self.port = 0
        self._sites: dict[str, Site] = {}

    def site(self) -> Site:
        """Make a site of its own for a consumer."""
        name = str(len(self._sites))
        self._sites[name] = Site(f"http://127.0.0.1:{self.port}/{name}")
        return self._sites[name]

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Answer /SITE/NAME."""
        site = self._sites.get(request.match_info["site"])
        path = site.requested(request.match_info["name"]) if site else None
        if path is None:
            raise web.HTTPNotFound
        return web.FileResponse(path)


@asynccontextmanager
async def web_server() -> AsyncIterator[WebServer]:
    """Run it on a free port of 127.0.0.1."""
    server = WebServer()
    application = web.Application()
    application.router.add_get("/{site}/{name}", server.get)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.port = runner.addresses[0][1]
        yield server
    finally:
        await runner.cleanup()
