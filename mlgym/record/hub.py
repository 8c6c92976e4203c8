"""The one place where events get their order: dedupe, number, append, fold, notify. No web in here.

`accept` takes the bytes of a spool as they are, so that in-process delivery and a websocket end in the same
call. Delivery is at least once by resending; it is exactly once by `(source, n)`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from mlgym.record.events import Event, Identity, Unknown, body_of, decode, decode_lines, seal
from mlgym.record.fold import State, fold_all
from mlgym.record.journal import Journal, read_blocks

_identify = msgspec.json.Decoder(Identity).decode

Subscriber = Callable[[list[Event], State], None]
"""Called after each batch with its new events and the state after them; must not block."""


class Acknowledgement(NamedTuple):
    """The hub's answer to a batch.

    `durable`: for each source in it, the number of its last event that is on disk. `expected`: for each
    source of which events are missing, the number to send next. `rejected`: lines that are no events, or
    whose crc does not fit.
    """

    durable: dict[str, int]
    expected: dict[str, int]
    rejected: int = 0


class Hub:
    """The writer of one event log. Opening it repairs the log, and rebuilds the state and the table of sources."""

    def __init__(self, log: Path) -> None:
        self._lock = threading.Lock()
        self._subscribers: list[Subscriber] = []
        self._last: dict[str, int] = {}
        self.state = State()
        self._journal = Journal(log, fsync="batch")
        for block in read_blocks(log):
            for line in block.lines.split(b"\n")[:-1]:
                if identity := _identity(line):
                    source, n = identity
                    self._last[source] = max(n, self._last.get(source, 0))
            fold_all(self.state, decode_lines(block.lines))

    @property
    def damaged(self) -> int:
        """Bytes in the middle of the log that cannot be read: it is not written any more."""
        return self._journal.damaged

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.append(subscriber)

    def accept(self, batch: bytes) -> Acknowledgement:
        """Take in whole spool lines, in the order of their numbers for each source.

        When this returns, what is acknowledged is on disk. Raises `StorageError` when nothing could be written.
        """
        with self._lock:
            return self._accept(batch)

    def _accept(self, batch: bytes) -> Acknowledgement:
        seq = self.state.seq
        last: dict[str, int] = {}  # of this batch; becomes the hub's own once it is on disk
        expected: dict[str, int] = {}
        rejected = 0
        lines: list[bytes] = []
        for line in batch.split(b"\n"):
            if not line:
                continue
            body = body_of(line)
            identity = _identity(line) if body else None
            if body is None or identity is None:
                rejected += 1
                continue
            source, n = identity
            known = last.get(source)
            if known is None:
                known = last[source] = self._last.get(source, 0)
            if n <= known:
                continue
            if n > known + 1:
                expected[source] = known + 1
                continue
            last[source] = n
            seq += 1
            lines.append(seal(b'{"seq":%d,%b' % (seq, body[1:])))
        if lines:
            data = b"".join(lines)
            events = decode_lines(data)
            if not all(map(_readable, events)):
                # Some line is malformed behind its source and number. Nothing is written yet: again without it.
                good = [line for line in batch.split(b"\n") if line and _readable(decode(line))]
                answer = self._accept(b"".join(line + b"\n" for line in good))
                return answer._replace(rejected=batch.count(b"\n") - len(good) + answer.rejected)
            self._journal.append(data)
            self._last |= last
            fold_all(self.state, events)
            self._notify(events)
        return Acknowledgement(last, expected, rejected)

    def _notify(self, events: list[Event]) -> None:
        for subscriber in list(self._subscribers):
            try:
                subscriber(events, self.state)
            except Exception:  # whoever only watches must not be able to stop the log
                self._subscribers.remove(subscriber)

    def close(self) -> None:
        self._journal.close()


def _identity(line: bytes) -> tuple[str, int] | None:
    """Who sent the event on a line, as which of its events; None when it does not say."""
    try:
        identity = _identify(line)
    except msgspec.MsgspecError:
        return None
    return identity.source, identity.n


def _readable(event: Event) -> bool:
    return not (isinstance(event, Unknown) and event.data is None)
