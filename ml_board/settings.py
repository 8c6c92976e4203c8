"""What a server is told when it is started. Imports nothing of ours."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal

import msgspec

Part = Literal["page", "rest", "sockets"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one client may ask of the server. Sizes in bytes."""

    message: int = 8 << 20
    """Of one websocket message: larger ones close the connection."""
    unknown_message: int = 320 << 10
    """The same for connections whose handshake did not bring the token."""
    config: int = 4 << 20
    """Of the body of a PUT."""
    upload: int = 64 << 30
    """Of one file of a checkpoint."""
    connections: int = 500
    """Websockets at a time."""
    requests: float = 1000
    """REST requests a second from one address; ten seconds' worth may come at once."""
    events: float = 20_000
    """Single events a second from one connection; what comes faster waits."""
    rooms: int = 100
    """Grid searches that one dashboard may watch."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`token` is None when none is asked for.

    `rest_endpoint` and `ws_endpoint` are where other processes serve these parts; `endpoints` are other boards that
    the user of the page may turn to.
    """

    event_storage: Path
    host: str = "127.0.0.1"
    port: int = 8080
    parts: frozenset[Part] = frozenset({"page", "rest", "sockets"})
    token: str | None = None
    cors_allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    rest_endpoint: str | None = None
    ws_endpoint: str | None = None
    endpoints: tuple[str, ...] = ()
    run_id: str | None = None
    limits: Limits = Limits()

    @property
    def on_loopback(self) -> bool:
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
