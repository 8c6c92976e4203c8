"""What the processes of a run say to each other over the sockets between them.

    parent -> server   F + a socket: fork, the child talks on that socket     K: signal a child     I: import modules
    server -> parent   R: ready, or why not     S: the pid of a child     E: why not     X: pid and exit status

A child is first sent an object: what to call. Pickle is for these inherited sockets only: it never comes from a disk, a
network or anybody but our own parent or child.
"""

from __future__ import annotations

import pickle
import socket
import struct
from typing import Any

PID = struct.Struct("<ii")
MESSAGE = 1 << 17
"""The most that a message between parent and server may take; a socket holds twice that."""

_LENGTH = struct.Struct("<Q")


def send(channel: socket.socket, value: Any) -> None:
    """Send an object to the process at the other end."""
    data = pickle.dumps(value)
    channel.sendall(_LENGTH.pack(len(data)) + data)


def receive(channel: socket.socket) -> Any:
    """The object that the other end sent. Raises `EOFError` when it has gone."""
    (length,) = _LENGTH.unpack(_exactly(channel, _LENGTH.size))
    return pickle.loads(_exactly(channel, length))  # noqa: S301 (an inherited socket, no disk, no network)


def _exactly(channel: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = channel.recv(min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
