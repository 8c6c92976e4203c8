"""The commands `ml_board`, `ml_board_ws_endpoint` and `ml_board_rest_endpoint`. What they need they import when run."""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from ml_board.settings import Part, Settings, is_loopback
from mlgym.errors import InputError, MLgymError, tell
from mlgym.record.token import board_token

_ALL: frozenset[Part] = frozenset({"page", "rest", "sockets"})


def main() -> int:
    """Everything on one port, or only the page when the other endpoints are named."""
    return _command("ml_board", _ALL, 8080, "Show the grid searches of an event storage, and take in those of runs.")


def ws_endpoint() -> int:
    """Only socket.io."""
    return _command("ml_board_ws_endpoint", frozenset({"sockets"}), 5002, "Take in and send out events.")


def rest_endpoint() -> int:
    """Only REST."""
    return _command("ml_board_rest_endpoint", frozenset({"rest"}), 5001, "Give and take configs and checkpoints.")


def _command(program: str, parts: frozenset[Part], port: int, description: str) -> int:
    parsed = _parser(program, parts, port, description).parse_args()
    try:
        return _serve(_settings(parsed, parts), parsed, program)
    except MLgymError as error:
        tell(str(error), program)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _parser(program: str, parts: frozenset[Part], port: int, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(program, description=description)
    add = parser.add_argument
    add("--event_storage_path", type=Path, default=Path("event_storage"), help="default: %(default)s")
    also = "page" in parts  # this command has both names
    add(
        "--host",
        *["--ml_board_host"][:also],
        dest="host",
        default="127.0.0.1",
        help="address to listen on; default: %(default)s, this machine only",
    )
    add(
        "--port",
        *["--ml_board_port"][:also],
        dest="port",
        type=int,
        default=port,
        help="default: %(default)s; 0: any free one",
    )
    add("--cors_allowed_origins", nargs="*", default=[], metavar="ORIGIN", help="pages from there may use this server")
    add("--allowed_hosts", nargs="*", default=[], metavar="NAME", help="more names that this server answers to")
    add("--no-token", "--no_token", action="store_true", help="ask nobody for a token; on the loopback address only")
    if also:
        add("--rest_endpoint", metavar="URL", help="serve only the page; REST is there")
        add("--ws_endpoint", metavar="URL", help="serve only the page; socket.io is there")
        add(
            "--endpoints",
            nargs="*",
            default=[],
            metavar="URL",
            help="other boards that the page's settings may choose; each has to allow this page by its "
            "--cors_allowed_origins, unless both are on loopback",
        )
        add("--run_id", help="the grid search to show first")
    add("--fd", type=int, help=argparse.SUPPRESS)  # a run hands over a socket that listens already ...
    add("--until_eof", action="store_true", help=argparse.SUPPRESS)  # ... and ends the server by closing its stdin
    return parser


def _settings(parsed: argparse.Namespace, parts: frozenset[Part]) -> Settings:
    endpoints = {key: _url(key, getattr(parsed, key, None)) for key in ("rest_endpoint", "ws_endpoint")}
    if any(endpoints.values()):
        if not all(endpoints.values()):
            raise InputError("--rest_endpoint and --ws_endpoint go together: the page needs both")
        parts = frozenset({"page"})
    if parsed.no_token and not is_loopback(parsed.host):
        raise InputError(f"--no-token on {parsed.host} would let everybody in: only together with a loopback address")
    return Settings(
        event_storage=parsed.event_storage_path,
        host=parsed.host,
        port=parsed.port,
        parts=parts,
        token=None if parsed.no_token else board_token(make=True),
        cors_allowed_origins=_urls("cors_allowed_origins", parsed.cors_allowed_origins),
        allowed_hosts=tuple(name for entry in parsed.allowed_hosts for name in _split(entry)),
        rest_endpoint=endpoints["rest_endpoint"],
        ws_endpoint=endpoints["ws_endpoint"],
        endpoints=_urls("endpoints", getattr(parsed, "endpoints", [])),
        run_id=getattr(parsed, "run_id", None),
    )


def _split(entry: str) -> list[str]:
    return [part for part in entry.replace(",", " ").split() if part]


def _urls(flag: str, entries: list[str]) -> tuple[str, ...]:
    """Each of them once; commas separate as well as spaces do."""
    return tuple(dict.fromkeys(_origin(flag, url) for entry in entries for url in _split(entry)))


def _url(flag: str, url: str | None) -> str | None:
    return None if url is None else _origin(flag, url)


_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\]")


def _origin(flag: str, url: str) -> str:
    """`url` without a path, as a browser writes it. Raises `InputError` when it is none.

    It becomes a part of headers, so a host has no characters but those that hosts have.
    """
    try:
        found = urlsplit(url)
        port = found.port
    except ValueError:
        found, port = urlsplit(""), None
    host = found.netloc.lower().removesuffix(f":{port}")
    if (
        found.scheme not in ("http", "https")
        or not _HOST.fullmatch(host)
        or found.path not in ("", "/")
        or found.query
        or found.fragment
    ):
        raise InputError(f"--{flag}: expected an address such as http://127.0.0.1:5001, not {url!r}")
    standard = port in (None, {"http": 80, "https": 443}[found.scheme])
    return f"{found.scheme}://{host}" if standard else f"{found.scheme}://{host}:{port}"


def _serve(settings: Settings, parsed: argparse.Namespace, program: str) -> int:
    if settings.event_storage.exists() and not settings.event_storage.is_dir():
        raise InputError(f"--event_storage_path {settings.event_storage}: this is not a folder")
    from ml_board.app import address, listen  # aiohttp and socket.io take their time; a wrong flag need not

    listening = listen(settings.host, settings.port) if parsed.fd is None else socket.socket(fileno=parsed.fd)

    def ready() -> None:
        if parsed.fd is not None:
            return  # the run says where
        url = address(settings, listening.getsockname()[1])
        token = f"/#token={settings.token}" if settings.token and "page" in settings.parts else ""
        print(f"{program}: {url}{token}", flush=True)  # noqa: T201
        if not settings.event_storage.is_dir() and settings.parts != {"page"}:
            tell(f"{settings.event_storage} is not there yet; the first run that delivers makes it", program)

    return _run(settings, listening, ready, parsed.until_eof)


def _run(settings: Settings, listening: socket.socket, ready: Callable[[], None], until_eof: bool) -> int:
    import asyncio

    from ml_board.app import serve

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(signum) is not signal.SIG_IGN or signum == signal.SIGTERM:
                loop.add_signal_handler(signum, stop.set)
        if until_eof:
            os.set_blocking(0, False)
            loop.add_reader(0, lambda: None if _more(0) else stop.set())
        await serve(settings, listening, ready, stop)

    asyncio.run(run())
    return 0


def _more(fd: int) -> bool:
    """Whether the other end is still there."""
    try:
        return bool(os.read(fd, 4096))
    except BlockingIOError:
        return True
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
