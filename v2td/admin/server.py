"""Listens on loopback or a Unix socket unless told otherwise, and answers what `routes` lists, guarded."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from v2td.admin.answers import add_headers
from v2td.admin.connections import acceptor
from v2td.admin.description import description
from v2td.admin.guard import Guard
from v2td.admin.routes import Route, Table, View, routes
from v2td.config import AdminSettings
from v2td.errors import ServiceError
from v2td.logs import get_logger

log = get_logger(__name__)

OPERATION = "listen for the admin endpoint"


@asynccontextmanager
async def serve(settings: AdminSettings, view: View, tables: Sequence[Table] = ()) -> AsyncIterator[str]:
    """Listen while the context lasts; yields the URL, without a path, or `unix:` and the socket's path.

    The `tables` are served beside what is to be seen of the daemon.

    Raises ServiceError when the address cannot be had, or the certificate not be used.
    """

    def stop() -> None:
        for table in tables:
            table.stop()

    more = (route for table in tables for route in table.routes())
    async with serve_routes(settings, (*routes(view), *more), stop) as url:
        yield url


@asynccontextmanager
async def serve_routes(
    settings: AdminSettings, table: Sequence[Route], stop: Callable[[], None] = lambda: None
) -> AsyncIterator[str]:
    """Serve these routes and the description of all of them; otherwise as `serve`.

    `stop` is called at the end: what is under way has a second then to be answered.
    """
    table = (*table, description(table, local=settings.local))
    app = web.Application(client_max_size=settings.max_body_bytes, middlewares=[Guard(settings, table).protect])
    app.on_response_prepare.append(add_headers)
    app.add_routes([_served(route) for route in table])

    async def stop_work(_app: web.Application) -> None:
        stop()

    app.on_shutdown.append(stop_work)
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    try:
        assert runner.server is not None
        async with _listening(settings, acceptor(settings, runner.server)) as url:
            log.info("admin endpoint", url=url if settings.socket else f"{url}/status")
            if not settings.local and settings.tls_cert_file is None:
                log.warning("admin endpoint: the token crosses the network as it is", cure="set admin.tls_cert_file")
            yield url
    finally:
        await runner.cleanup()


def _served(route: Route) -> web.RouteDef:
    """Return aiohttp's form of a route, with HEAD for every GET."""
    path = route.path.replace("}", ":[^/]+}")  # aiohttp's own pattern takes no braces, which an id may hold
    if route.body is None:
        return web.route(route.method, path, route.answer)
    return web.route(route.method, path, route.answer, expect_handler=_expectation)


async def _expectation(_request: web.Request) -> None:
    """Leave `100 Continue` to whoever takes the body: a client that waits for it sends none of what is refused."""


@asynccontextmanager
async def _listening(settings: AdminSettings, accept: Callable[[], asyncio.BaseProtocol]) -> AsyncIterator[str]:
    loop, tls = asyncio.get_running_loop(), _tls(settings)
    handshake_seconds = settings.request_seconds if tls else None
    where = str(settings.socket or f"{settings.host}:{settings.port}")
    try:
        if settings.socket is not None:
            server = await loop.create_unix_server(
                accept, sock=_unix_socket(settings.socket), ssl=tls, ssl_handshake_timeout=handshake_seconds
            )
        else:
            server = await loop.create_server(
                accept, settings.host, settings.port, ssl=tls, ssl_handshake_timeout=handshake_seconds
            )
    except OSError as error:
        hint = "name another admin.socket" if settings.socket else "set admin.port to a free one, or 0"
        raise ServiceError(OPERATION, f"{where}: {error.strerror or error}", hint) from error
    try:
        if settings.socket is not None:
            yield f"unix:{settings.socket}"
        else:
            for listener in server.sockets:  # what is accepted inherits it: who does not take an answer is cut off
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(settings.request_seconds * 1000))
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            yield f"{'https' if tls else 'http'}://{host}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        if settings.socket is not None:
            settings.socket.unlink(missing_ok=True)


def _unix_socket(path: Path) -> socket.socket:
    """A socket bound to `path`, in the place of one that nobody listens on any more."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket() and not _answered(path):
            path.unlink()
        os.fchmod(listener.fileno(), stat.S_IRUSR | stat.S_IWUSR)  # before it has a name that others could use
        listener.bind(str(path))
    except BaseException:
        listener.close()
        raise
    return listener


def _answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as caller:
        try:
            caller.connect(str(path))
        except ConnectionRefusedError:  # a daemon that was killed left it
            return False
        except BlockingIOError:  # it is there and busy
            pass
        return True


def _tls(settings: AdminSettings) -> ssl.SSLContext | None:
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    try:
        if settings.tls_key_file.stat().st_mode & stat.S_IRWXO:
            hint = f"run chmod o= {settings.tls_key_file}"
            raise ServiceError(OPERATION, f"admin.tls_key_file {settings.tls_key_file}: anybody may read it", hint)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        # A password, so that an encrypted key is an error here and no question on a terminal.
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file, password="")
    except OSError as error:  # ssl.SSLError is one
        files = f"{settings.tls_cert_file}, {settings.tls_key_file}"
        hint = "admin.tls_cert_file and tls_key_file name a PEM chain and its unencrypted key"
        raise ServiceError(OPERATION, f"{files}: {error.strerror or error}", hint) from error
    return context
