"""What every answer has: headers that give a browser nothing to work with, and problems as RFC 9457 has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from aiohttp import web

PROBLEM_TYPE = "application/problem+json"
POLICY = "Content-Security-Policy"

HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Cache-Control": "no-store",
        POLICY: "default-src 'none'; frame-ancestors 'none'",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "Server": "v2td",  # not which Python and which aiohttp
        "X-Content-Type-Options": "nosniff",
    }
)


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Complete an answer that is about to be sent; what it says itself of its content's rights stays."""
    own = response.headers.get(POLICY)
    response.headers.update(HEADERS)
    if own is not None:
        response.headers[POLICY] = own


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an answer that says what is wrong."""
    body = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return web.Response(
        status=status, body=json.dumps(body).encode() + b"\n", content_type=PROBLEM_TYPE, headers=headers
    )
