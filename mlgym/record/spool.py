"""What one process writes about itself: typed events, numbered, appended to its own journal.

A worker only ever does this; it never waits for a network or a server. Imports events and journal.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import msgspec

from mlgym.errors import StorageError
from mlgym.record.events import EVENT_TYPES, Payload, seal
from mlgym.record.journal import Journal

_encode = msgspec.json.Encoder().encode


def new_source(name: str) -> str:
    """A name for this incarnation of a process, different from every other: `18b9f3a2c1d4e5f6-job-3-1-5f0c12ab`.

    It begins with the time, so that spools sort by age and are delivered oldest first.
    """
    return f"{time.time_ns():x}-{name}-{os.urandom(4).hex()}"


def begin(path: Path) -> Journal:
    """A new journal at `path`, whose folder is made. Raises `StorageError`.

    It gets its name once its flock is held: whoever sees a spool without one knows that its writer is gone.
    """
    unnamed = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        journal = Journal(unnamed)
        unnamed.rename(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from None
    journal.path = path
    return journal


class Spool:
    """An open spool. `source` and the running number `n` identify each event for good."""

    def __init__(self, path: Path, source: str) -> None:
        self.source = source
        self._journal = begin(path)
        self._n = 0
        self._owner = os.getpid()
        self._lock = threading.Lock()  # checkpoints are written, and told, by another thread
        self._head = {
            payload_type: b'{"event_type":"%b","creation_ts":%%d,"source":"%b","n":%%d,"attempt":%%d,"payload":%%b'
            % (event_type, source.encode())
            for payload_type, event_type in EVENT_TYPES.items()
        }

    def emit(self, payload: Payload, attempt: int = 1) -> None:
        """Append one event of an attempt at a job. When this returns, the event survives the death of this process.

        Raises `StorageError` when it could not be written; the number is then not used up.
        """
        if os.getpid() != self._owner:
            os._exit(1)  # a fork in user code that came back to us has no say
        with self._lock:
            n = self._n + 1
            body = self._head[type(payload)] % (time.time_ns() // 1_000_000, n, attempt, _encode(payload))
            self._journal.append(seal(body))
            self._n = n

    def fileno(self) -> int:
        """The descriptor that holds the flock."""
        return self._journal.fileno()

    def close(self) -> None:
        self._journal.close()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
