"""A web server of recordings that remembers when it was first asked: that is when a consumer had its first message."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web


class WebServer:
    """Serves the files it was told, by their names."""

    def __init__(self) -> None:
        self.port = 0
        self.first_request: float | None = None  # time.monotonic()
        self._files: dict[str, Path] = {}

    def serve(self, paths: Iterable[Path]) -> None:
        """Serve these as well, and forget the first request."""
        self._files |= {path.name: path for path in paths}
        self.first_request = None

    def url(self, path: Path) -> str:
        """Return where a file is served."""
        return f"http://127.0.0.1:{self.port}/{path.name}"

    async def _get(self, request: web.Request) -> web.StreamResponse:
        if self.first_request is None:
            self.first_request = time.monotonic()
        path = self._files.get(request.match_info["name"])
        if path is None:
            raise web.HTTPNotFound
        return web.FileResponse(path)


@asynccontextmanager
async def web_server() -> AsyncIterator[WebServer]:
    """Run it on a free port of 127.0.0.1."""
    server = WebServer()
    application = web.Application()
    application.router.add_get("/{name}", server._get)  # noqa: SLF001 (the two are one)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.port = runner.addresses[0][1]
        yield server
    finally:
        await runner.cleanup()
