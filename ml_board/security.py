"""Who may ask this server anything: the names it answers to, the pages that may call it, the token, and how often.

docs/security.md says against what. Imports refusal and settings.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import time
from collections import OrderedDict
from collections.abc import Mapping
from urllib.parse import urlsplit

from aiohttp import web

from ml_board.refusal import Refusal
from ml_board.settings import Settings, is_loopback

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class Guard:
    """Decides on requests. `port` is the one that the server listens on."""

    def __init__(self, settings: Settings, port: int) -> None:
        self._settings = settings
        own = () if settings.on_loopback else (socket.gethostname(),)
        self._hosts = {host.lower() for host in (*settings.allowed_hosts, *_LOOPBACK, settings.host, *own)}
        self._origins = {origin.rstrip("/").lower() for origin in settings.cors_allowed_origins}
        self._token = settings.token
        self.cookie = f"mlgym_board_{port}"
        # Browsers send cookies to every port of a host. So this one is not the token, and opens no other board.
        self._session = (
            hmac.new(settings.token.encode(), f"session {port}".encode(), hashlib.sha256).hexdigest()
            if settings.token
            else None
        )
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def check_host(self, request: web.BaseRequest) -> None:
        """Against DNS rebinding: another site's name that leads here. Raises `Refusal`."""
        name = _host_name(request.headers.get("Host", ""))
        address = request.transport.get_extra_info("sockname") if request.transport else None
        own = address[0] if isinstance(address, tuple) else None
        if name not in self._hosts and (own is None or name not in (own, f"[{own}]")):
            raise Refusal(403, f"this server does not answer to the name {name[:80]!r}; --allowed_hosts adds it")

    def allowed_origin(self, request: web.BaseRequest) -> str | None:
        """The page that makes the request, or None when no page does. Raises `Refusal` when it may not."""
        origin = request.headers.get("Origin")
        if origin is None:
            return None
        own = f"{request.scheme}://{request.headers.get('Host', '')}"
        if origin.lower() == own.lower() or origin.lower() in self._origins:
            return origin
        if self._settings.on_loopback and _is_loopback_origin(origin):
            return origin
        raise Refusal(403, f"pages from {origin[:80]!r} may not use this server; --cors_allowed_origins allows them")

    def check_token(self, headers: Mapping[str, str], cookies: Mapping[str, str], auth: object = None) -> None:
        """Raises `Refusal`: 401 without the token."""
        if self._token is None:
            return
        scheme, _, given = headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(given.strip(), self._token):
            return
        if isinstance(auth, dict) and isinstance(auth.get("token"), str) and _same(auth["token"], self._token):
            return
        if self._session and _same(cookies.get(self.cookie, ""), self._session):
            return
        raise Refusal(401, "expected the board's token, as `Authorization: Bearer` (see docs/security.md)")

    def give_cookie(self, response: web.StreamResponse) -> None:
        """From now on the browser that gets this response needs no token."""
        if self._session:
            response.set_cookie(self.cookie, self._session, httponly=True, samesite="Strict", path="/")

    def check_rate(self, request: web.BaseRequest) -> None:
        """Raises `Refusal`: 429 for more requests than one address may make."""
        address = request.remote or ""
        bucket = self._buckets.pop(address, None) or Bucket(self._settings.limits.requests)
        self._buckets[address] = bucket
        if len(self._buckets) > 10_000:
            self._buckets.popitem(last=False)
        if bucket.wait() > 0:
            raise Refusal(429, f"more than {self._settings.limits.requests:g} requests a second")
        bucket.take()


class Bucket:
    """So many a second; what ten seconds bring may come at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left = 10 * rate
        self._at = time.monotonic()

    def wait(self) -> float:
        """Seconds until the next one may be taken."""
        now = time.monotonic()
        self._left = min(10 * self._rate, self._left + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (1 - self._left) / self._rate)

    def take(self) -> None:
        self._left -= 1


def _is_loopback_origin(origin: str) -> bool:
    try:
        found = urlsplit(origin)
    except ValueError:
        return False
    return found.scheme in ("http", "https") and is_loopback(found.hostname or "")


def _host_name(host: str) -> str:
    """`Host` without its port."""
    name, _, port = host.strip().lower().rpartition(":")
    return name if name and port.isdigit() else host.strip().lower()


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def page_headers(settings: Settings) -> dict[str, str]:
    """What the page may do: talk to this server and to the endpoints named on the command line."""
    named = [settings.rest_endpoint, settings.ws_endpoint, *settings.endpoints]
    connect = " ".join(dict.fromkeys(["'self'", *(source for url in named if url for source in _sources(url))]))
    return {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        f"font-src 'self'; connect-src {connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }


def _sources(endpoint: str) -> list[str]:
    found = urlsplit(endpoint)
    return [f"{found.scheme}://{found.netloc}", f"{'wss' if found.scheme == 'https' else 'ws'}://{found.netloc}"]
