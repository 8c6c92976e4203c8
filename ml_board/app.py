"""The server as a whole: the page, REST and socket.io behind one guard, on one port, in one event loop.

Imports everything else in ml_board but the command line.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from yarl import URL

from ml_board.openapi import description
from ml_board.refusal import Refusal
from ml_board.rest import Rest
from ml_board.security import Guard, page_headers
from ml_board.settings import Settings
from ml_board.sockets import Sockets
from ml_board.store import Store
from mlgym.errors import InputError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STATIC = Path(__file__).parent / "static"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_SOCKETS = "/socket.io/"
_MAX_LINE = 64 * 1024  # bytes of a request line: the points of many scores and experiments are asked for at once
_ORIGIN = web.RequestKey("origin", str)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises `InputError` when the address cannot be had."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(found[0], found[1], found[2])
    except (OSError, OverflowError) as error:
        raise InputError(f"--host {host} --port {port}: {error}") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(found[4])
        listening.listen(128)
    except (OSError, OverflowError) as error:
        listening.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise InputError(f"port {port} on {host} is taken; choose another with --port (0: any free one)") from None
        raise InputError(f"--host {host} --port {port}: {error}") from None
    return listening


def address(settings: Settings, port: int) -> str:
    """Where the server is to be found, without the token."""
    host = socket.gethostname() if settings.host in ("0.0.0.0", "::", "") else settings.host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def serve(settings: Settings, listening: socket.socket, ready: Callable[[], None], stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    store = Store(settings.event_storage)
    guard = Guard(settings, listening.getsockname()[1])
    rest = Rest(store, settings.limits) if "rest" in settings.parts else None
    sockets = Sockets(store, guard, settings.limits) if "sockets" in settings.parts else None
    app = application(settings, guard, rest, sockets)
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1, max_line_size=_MAX_LINE)
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # what clients send is no news; our errors are printed
    await runner.setup()
    _mend_malformed(runner)
    try:
        await web.SockSite(runner, listening).start()
        ready()
        await stop.wait()
    finally:
        if sockets:
            await sockets.close()
        await store.close()
        await runner.cleanup()


def _mend_malformed(runner: web.AppRunner) -> None:
    """aiohttp lets a few request lines through that have no path at all, and then fails over them."""
    server = runner.server
    assert isinstance(server, web.Server)
    make = server.request_factory

    def request(message: Any, *rest: Any) -> web.BaseRequest:
        return make(message if message.url is not None else message._replace(url=URL("/malformed")), *rest)

    server.request_factory = request


def application(settings: Settings, guard: Guard, rest: Rest | None, sockets: Sockets | None) -> web.Application:
    """The routes behind the guard."""
    public: set[str] = set()
    app = web.Application(middlewares=[_guarded(guard, sockets, public)])

    async def headers(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers.setdefault("Cache-Control", "no-store")
        if origin := request.get(_ORIGIN):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Credentials"] = "true"
            response.headers["Vary"] = "Origin"

    app.on_response_prepare.append(headers)

    async def session(request: web.Request) -> web.Response:
        guard.check_token(request.headers, request.cookies)
        response = web.json_response({})
        guard.give_cookie(response)
        return response

    app.router.add_post("/session", session)
    public.add("/session")  # it asks for the token itself
    if rest:
        routes = rest.routes()
        for route in routes:
            app.router.add_route(route.method, route.path, route.handler)
        document = msgspec.json.encode(description(routes, protected=settings.token is not None))

        async def openapi(request: web.Request) -> web.Response:
            return web.Response(body=document, content_type="application/json")

        app.router.add_get("/openapi.json", openapi)
        public.add("/openapi.json")
    if sockets:
        sockets.attach(app)
        public.add(_SOCKETS)  # the token comes with the first message, or with the handshake
    if "page" in settings.parts:
        for path, handler in _page(settings).items():
            app.router.add_get(path, handler)
            public.add(path)
    return app


def _page(settings: Settings) -> dict[str, Handler]:
    """The files of the page, and what it has to know."""
    csp = page_headers(settings)

    def fixed(body: bytes, content_type: str) -> Handler:
        async def send(request: web.Request) -> web.Response:
            return web.Response(body=body, content_type=content_type, headers=csp)

        return send

    endpoints = {
        "rest": settings.rest_endpoint,
        "ws": settings.ws_endpoint,
        "run_id": settings.run_id,
        "allowed": settings.endpoints,
    }
    found = {"/endpoints.json": fixed(msgspec.json.encode(endpoints), "application/json")}
    for file in STATIC.iterdir():
        if file.suffix in _TYPES:
            found[f"/{file.name}"] = fixed(file.read_bytes(), _TYPES[file.suffix])
    found["/"] = found["/index.html"]
    return found


def _guarded(guard: Guard, sockets: Sockets | None, public: set[str]) -> Callable[..., Awaitable[web.StreamResponse]]:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            guard.check_host(request)
            origin = guard.allowed_origin(request)
            if origin:
                request[_ORIGIN] = origin
            if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
                return _preflight()
            if request.path == _SOCKETS and sockets:
                sockets.check_room()
            elif request.path not in public:
                guard.check_rate(request)
                guard.check_token(request.headers, request.cookies)
            return await handler(request)
        except Refusal as refusal:
            headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}.get(refusal.status)
            return _error(refusal.status, refusal.message, headers)
        except web.HTTPException as error:
            allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            return _error(error.status, error.reason, allow)
        except web.RequestPayloadError as error:
            return _error(400, f"the body cannot be read: {error}")
        except (ConnectionError, asyncio.CancelledError):  # the client has gone
            raise
        except Exception:
            traceback.print_exc(file=sys.stderr)
            return _error(500, "internal error")

    return middleware


def _preflight() -> web.Response:
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": "GET, PUT, POST, DELETE",
            "Access-Control-Allow-Headers": "Authorization, Content-Type, Range",
            "Access-Control-Max-Age": "600",
        },
    )


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"status": status, "message": message}}, status=status, headers=headers)
