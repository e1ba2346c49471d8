"""Access control of the server: the Host and Origin of each request, a token where other machines can reach it.

A browser sends requests to this machine for any page that is open in it.  So a request must name this server (`Host`;
else a foreign name could be pointed at our address), and must come from our own page (`Origin`, `Sec-Fetch-Site`).
Clients that are no browsers send neither header and are let in.  Every answer carries the headers that keep the page
from being framed, read or scripted by others.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reverie.errors import ServeError
from reverie.serve.protocol import Error, ErrorCode, to_json

COOKIE_DAYS = 30
MIN_TOKEN = 8
"""Characters of a token that a person chose."""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}

_LOCKED = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Reverie</title>
<p>This world is private. Open the link that the server printed when it started: it ends in ?token=...</p></html>"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Rules for the requests that a server accepts.

    Args:
        hosts: names, besides this machine's loopback ones, that the server goes by.  Pages of these hosts are its own
            as well, so that a proxy in front may have another name than it asks us by.
        names: more names of this machine itself; a page of one is our own only if it comes from our port.
        any_address: whether the server goes by every IP address (it listens on networks whose addresses may change).
        token: what a visitor must bring, in the link, a cookie or an `Authorization: Bearer` header; None: nothing.
    """

    hosts: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    any_address: bool = False
    token: str | None = field(default=None, repr=False)

    def is_own_host(self, host: str) -> bool:
        """Returns whether a `Host` header names this server; the port is ignored, for it may be forwarded."""
        name = _split(host)[0]
        if name is None:
            return False
        return (
            name == "localhost" or name in self.hosts | self.names or _is_address(name, loopback=not self.any_address)
        )

    def is_own_origin(self, origin: str, host: str) -> bool:
        """Returns whether `origin` is the origin of this server's own page, requested as `host`."""
        scheme, separator, rest = origin.partition("://")
        if scheme not in ("http", "https") or not separator:
            return False  # "null" among them: a sandboxed frame, a file
        default = 443 if scheme == "https" else 80
        (name, port), (own_name, own_port) = _split(rest), _split(host)
        if name is None:
            return False
        return name in self.hosts or (name, port or default) == (own_name, own_port or default)

    def is_token(self, given: str | None) -> bool:
        """Returns whether `given` is the token; always true if no token is required."""
        if self.token is None:
            return True
        return given is not None and hmac.compare_digest(given.encode(), self.token.encode())


def access_for(host: str, token: str = "auto", allow_hosts: Iterable[str] = ()) -> Access:
    """The access of a server that listens on `host`.

    Args:
        host: the address that is listened on.
        token: `auto` asks for a random one as soon as others than this machine can reach the server; `none` for none;
            anything else is the token.
        allow_hosts: more names that the server goes by, as behind a proxy.

    Raises ServeError for a token that is too short or a name that is none.
    """
    hosts = {name.lower().rstrip(".") for name in allow_hosts}
    for name in hosts:
        if _split(name) != (name, None):
            raise ServeError(f"--allow-host takes a name such as world.example.org, without a port, got {name!r}")
    is_exposed = not is_loopback(host)
    if token == "auto":
        token = secrets.token_urlsafe(16) if is_exposed or hosts else "none"
    if len(token) < MIN_TOKEN and token != "none":
        raise ServeError(
            f"a token has at least {MIN_TOKEN} characters, got {len(token)}; leave --token out for a good one"
        )
    names: set[str] = set()
    if is_exposed:
        own = socket.gethostname().lower()
        names = {own, f"{own}.local"} | ({host.lower()} if host else set())
    return Access(
        hosts=frozenset(hosts), names=frozenset(names), any_address=is_exposed, token=None if token == "none" else token
    )


def is_loopback(host: str) -> bool:
    """Returns whether only this machine can reach a server that listens on `host`."""
    return host == "localhost" or _is_address(host.strip("[]"), loopback=True)


def with_token(address: str, access: Access) -> str:
    """The link to the page, with the token where one is asked for."""
    return address if access.token is None else f"{address}/?{urlencode({'token': access.token})}"


class Gate:
    """ASGI middleware that refuses what `access` does not let in, and adds the security headers to every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host = headers.get("host", "")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for name, value in {**SECURITY_HEADERS, "Content-Security-Policy": _policy(host)}.items():
                    answer[name] = value
            await send(message)

        refusal = self._refusal(scope, headers, host)
        if refusal is None:
            await self._app(scope, receive, guarded)
        elif scope["type"] == "websocket":
            await receive()  # the client's connect; a close before it is accepted becomes status 403
            await send({"type": "websocket.close", "code": 4403, "reason": ""})
        else:
            await refusal(scope, receive, guarded)

    def _refusal(self, scope: Scope, headers: Headers, host: str) -> Response | None:
        """The answer to a request that is not let in; None for one that is."""
        if headers.getlist("host") != [host] or not self._access.is_own_host(host):
            return _forbidden(f"this server does not go by the name {host[:80]!r}; add --allow-host to let it")
        origins = headers.getlist("origin")
        if any(not self._access.is_own_origin(origin, host) for origin in origins):
            return _forbidden("pages of other sites may not use this server")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not _is_visit(scope, headers):
            return _forbidden("pages of other sites may not use this server")
        return self._locked(scope, headers, host)

    def _locked(self, scope: Scope, headers: Headers, host: str) -> Response | None:
        access = self._access
        if access.token is None:
            return None
        in_link = _token_in_link(scope)
        cookie = f"reverie-{_split(host)[1] or 80}"
        if in_link is not None and access.is_token(in_link):
            if scope["type"] == "http" and scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
                return _let_in(cookie, access.token)
            return None
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if access.is_token(bearer) or any(map(access.is_token, _read_cookies(headers, cookie))):
            return None
        if scope["type"] == "http" and scope["path"] == "/":
            return HTMLResponse(_LOCKED, 403, headers={"Cache-Control": "no-store"})
        return _forbidden("this world is private; open the link that the server printed, which ends in ?token=...")


def _is_visit(scope: Scope, headers: Headers) -> bool:
    """Returns whether a request follows another site's link to the page: that is allowed, fetching or framing it is
    not."""
    is_document = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
    return is_document and scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and scope["path"] == "/"


def _let_in(cookie: str, token: str) -> Response:
    """Keep the token in a cookie, and take it out of the address bar.

    Lax, not strict: the redirect after a link of a mail or chat page must bring the cookie along.
    """
    response = RedirectResponse("./", 303, headers={"Cache-Control": "no-store"})
    response.set_cookie(cookie, quote(token, safe=""), max_age=COOKIE_DAYS * 86_400, httponly=True, samesite="lax")
    return response


def _token_in_link(scope: Scope) -> str | None:
    try:
        values = parse_qs(scope["query_string"].decode("ascii", "replace"), max_num_fields=20).get("token", [])
    except ValueError:
        return None
    return values[0] if len(values) == 1 else None


def _read_cookies(headers: Headers, name: str) -> list[str]:
    """The values of a cookie: a browser also sends the cookies of other servers on this machine, of any form."""
    pairs = [part.partition("=") for part in headers.get("cookie", "").split(";")]
    return [unquote(value.strip()) for key, _, value in pairs if key.strip() == name]


def _forbidden(message: str) -> Response:
    body = to_json(Error(ErrorCode.FORBIDDEN, message, fatal=False))
    return Response(body, 403, media_type="application/json", headers={"Cache-Control": "no-store"})


def _policy(host: str) -> str:
    """Everything from this server and nothing from elsewhere; older Safaris need the WebSocket's address spelt out."""
    sockets = f" ws://{host} wss://{host}" if _split(host)[0] is not None else ""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data: blob:; "
        f"media-src 'self' blob:; worker-src 'self'; manifest-src 'self'; connect-src 'self'{sockets}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _split(netloc: str) -> tuple[str | None, int | None]:
    """(lower-case name, port) of `name:port`; (None, None) for what is no such thing."""
    if not netloc or any(char in netloc for char in "/\\@?#;, \t'\""):
        return None, None
    try:
        parts = urlsplit(f"//{netloc}")
        name, port = parts.hostname, parts.port
    except ValueError:
        return None, None
    return (name.rstrip(".") or None, port) if name else (None, None)


def _is_address(name: str, *, loopback: bool) -> bool:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or not loopback
