"""Who may ask: the checks of a request's Host, Origin and key, before anything else is read of it."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Collection
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from chargen.serving.protocol import error_of

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN = {"/healthz"}  # answered without a key


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host's address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Refuse requests that were sent by a page of another site.

    A site may point its own name at 127.0.0.1 (DNS rebinding), so the name in Host has to be one of ours. A browser
    sends the Origin of the page with every request to another site that could have an effect.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None, origins: Collection[str]) -> None:
        """Take the names for Host, None for any, and the origins of pages that may use this server."""
        self._app, self._hosts, self._origins = app, hosts, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._hosts is not None and _name(host) not in self._hosts:
            wrong = "the Host of the request is no name of this server: use the address that chargen serve shows"
        elif origin is not None and origin not in (*self._origins, f"http://{host}", f"https://{host}"):
            wrong = f"a page of {origin} may not use this server: start it with --allow-origin {origin}"
        else:
            await self._app(scope, receive, send)
            return
        await Response(error_of(wrong, 403), 403, media_type="application/json")(scope, receive, send)


class KeyGuard:
    """Refuse requests without the key, which is a bearer token, or the password with which a browser asks for pages."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app, self._key = app, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        given = _given(Headers(scope=scope).get("authorization", ""))
        if scope["path"] in OPEN or hmac.compare_digest(given, self._key):
            await self._app(scope, receive, send)
            return
        wrong = "the API key is missing or wrong: send it as Authorization: Bearer KEY"
        kind = "Bearer" if scope["path"].startswith("/v1/") else 'Basic realm="chargen", charset="UTF-8"'
        headers = {"WWW-Authenticate": kind}
        error = error_of(wrong, 401, code="invalid_api_key")
        await Response(error, 401, headers, media_type="application/json")(scope, receive, send)


def _name(host: str) -> str:
    """Return the name in a Host header, without the port and the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _given(authorization: str) -> bytes:
    """Return the key in an Authorization header; b"" if there is none."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""
