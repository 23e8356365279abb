"""What a request must pass before anything answers it: its Host, its rate, its token, its body."""

from __future__ import annotations

import asyncio
import hmac
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import ip_address, ip_network

from aiohttp import web

from v2td.admin.answers import problem
from v2td.admin.rate import RateLimit
from v2td.admin.routes import Access, Route
from v2td.config import AdminSettings
from v2td.logs import get_logger
from v2td.metrics import ADMIN_REJECTED

log = get_logger(__name__)

# A name or an address, and a port: all that Host may be (RFC 9110, and no user before it).
HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::\d{1,5})?", re.ASCII)
CHALLENGE = 'Bearer realm="v2td"'


class Guard:
    """The one middleware: it lets through, or answers with a problem; no exception passes it but a cancellation."""

    def __init__(self, settings: AdminSettings, routes: Sequence[Route]) -> None:
        self._settings = settings
        self._token = settings.token.get_secret_value().encode() if settings.token else None
        self._routes = {(route.method, route.path): route for route in routes}
        self._rate = RateLimit(settings.requests_per_second)
        self._rates = {each.per_second: RateLimit(each.per_second) for each in routes if each.per_second is not None}
        self._names = {name.lower() for name in ("localhost", settings.host, *settings.allowed_hosts)}

    @web.middleware
    async def protect(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Answer a request, or say why not."""
        route = self._route_of(request)
        refuse = problem if route is None else route.refuse
        try:
            self._check_host(request)
            if route is None or route.access is not Access.PROBE:
                self._check_rate(request, route)
            if route is not None:
                self._check_token(request, route.access)
            if route is None or route.body is None:
                await self._read_body(request)
            return await handler(request)
        except web.HTTPException as error:
            return refuse(error.status, error.text or error.reason, _kept(error.headers))
        except Exception:
            log.exception("admin endpoint", path=request.path)
            return refuse(500, "see the daemon's log", None)

    def _route_of(self, request: web.Request) -> Route | None:
        """What is asked for; None: nothing is there, or not by this method, which the router is going to say."""
        resource = request.match_info.route.resource
        if resource is None:
            return None
        method = "GET" if request.method == "HEAD" else request.method
        return self._routes[method, resource.canonical]

    def _check_host(self, request: web.Request) -> None:
        """Refuse other names than ours: a browser sends the page's, and a page's name can be pointed at us.

        Addresses are as they are; and what sends no Host, as HTTP/1.0 may, is no browser.
        """
        hosts = request.headers.getall("Host", [])
        if not hosts and request.version < (1, 1):
            return
        match = HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if match is None:
            ADMIN_REJECTED.labels("host").inc()
            raise web.HTTPBadRequest(text="one Host, a name or an address, is needed")
        if not (_is_address(match["v6"] or match["name"]) or (match["name"] or "").lower() in self._names):
            ADMIN_REJECTED.labels("host").inc()
            raise web.HTTPMisdirectedRequest(
                text="not a name of ours: add it to admin.allowed_hosts, or use the address"
            )

    def _check_rate(self, request: web.Request, route: Route | None) -> None:
        """Refuse who asks too often; a limit of the route's own is for the token's owner, never for who guesses it."""
        rate, most, setting = self._rate, self._settings.requests_per_second, "admin.requests_per_second"
        if route is not None and route.per_second is not None and self._is_token(_bearer(request)):
            rate, most, setting = self._rates[route.per_second], route.per_second, "api.jobs_per_second"
        wait = rate.wait(_client(request.remote), time.monotonic())
        if wait:
            ADMIN_REJECTED.labels("rate").inc()
            raise web.HTTPTooManyRequests(
                text=f"more than {most} requests a second ({setting})", headers={"Retry-After": str(math.ceil(wait))}
            )

    def _is_token(self, given: str | None) -> bool:
        if given is None or self._token is None:
            return False
        # A header's bytes that are no UTF-8 come as surrogates.
        return hmac.compare_digest(given.encode(errors="surrogateescape"), self._token)

    def _check_token(self, request: web.Request, access: Access) -> None:
        if not access.asks_for_token(local=self._settings.local):
            return
        if self._token is None:
            ADMIN_REJECTED.labels("token").inc()
            raise web.HTTPForbidden(text="this takes a token, and none is set (admin.token)")
        given = _bearer(request)
        if given is None:
            ADMIN_REJECTED.labels("token").inc()
            raise web.HTTPUnauthorized(text="send the token as a bearer", headers={"WWW-Authenticate": CHALLENGE})
        if not self._is_token(given):
            ADMIN_REJECTED.labels("token").inc()
            challenge = {"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'}
            raise web.HTTPUnauthorized(text="not the token", headers=challenge)

    async def _read_body(self, request: web.Request) -> None:
        """Have the body in memory, whole and short, before anything looks at it."""
        try:
            async with asyncio.timeout(self._settings.request_seconds):
                if (request.content_length or 0) > self._settings.max_body_bytes:
                    raise web.HTTPRequestEntityTooLarge(self._settings.max_body_bytes, request.content_length or 0)
                await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            ADMIN_REJECTED.labels("body").inc()
            error.text = f"longer than {self._settings.max_body_bytes} bytes (admin.max_body_bytes)"
            raise
        except (web.RequestPayloadError, ConnectionError):
            ADMIN_REJECTED.labels("malformed").inc()
            raise web.HTTPBadRequest(text="the body is not as announced") from None
        except TimeoutError:
            ADMIN_REJECTED.labels("slow").inc()
            raise web.HTTPRequestTimeout(text="the body did not arrive in time (admin.request_seconds)") from None


def _bearer(request: web.Request) -> str | None:
    """Return the token that a request shows, right or wrong."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else None


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _client(address: str | None) -> str:
    """Return what is limited as one: an IPv4 address, an IPv6 network of 64 bits, or all of a Unix socket's."""
    if not address or ":" not in address:
        return address or "unix"
    return str(ip_network((address.partition("%")[0], 64), strict=False))


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() != "content-type"}
