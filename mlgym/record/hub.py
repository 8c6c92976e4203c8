"""The one place where events get their order: dedupe, number, append, fold, notify. No web in here.

`accept` takes the bytes of a spool as they are, so that in-process delivery and a websocket end in the same
call. Delivery is at least once by resending; it is exactly once by `(source, n)`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from mlgym.errors import DamagedError
from mlgym.record.events import MAX_EVENT, Event, Identity, Unknown, body_of, decode_lines, seal, too_deep
from mlgym.record.fold import State
from mlgym.record.journal import Journal
from mlgym.record.log import Log

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
    """The writer of one event log. Opening it repairs the log and takes its flock: `InUseError` if another has it."""

    def __init__(self, path: Path) -> None:
        log = Log.load(path) if path.is_file() else Log(path)
        if log.old:
            raise DamagedError(f"{path}: was written by an earlier tool; `mlgym import` makes a log to go on with")
        self._journal: Journal | None = Journal(path, fsync="batch", start=log.end)
        try:
            log.refresh()  # what another hub has written since
        except BaseException:
            self._journal.close()
            raise
        self._begin(log)

    @classmethod
    def mirror(cls, log: Log) -> Hub:
        """A hub that keeps the state of `log` as batches arrive, and leaves writing them to another."""
        hub = cls.__new__(cls)
        hub._journal = None
        hub._begin(log)
        return hub

    def _begin(self, log: Log) -> None:
        self.log = log
        self._lock = threading.Lock()
        self._subscribers: list[Subscriber] = []

    @property
    def state(self) -> State:
        return self.log.state

    @property
    def damaged(self) -> int:
        """Bytes in the middle of the log that cannot be read: it is not written any more."""
        return self.state.damaged

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.append(subscriber)

    def accept(self, batch: bytes, grid_search_id: str | None = None) -> Acknowledgement:
        """Take in whole spool lines, in the order of their numbers for each source.

        With `grid_search_id`, events of any other are rejected. When this returns, what is acknowledged is on disk.
        Raises `StorageError` when nothing could be written.
        """
        with self._lock:
            return self._accept(batch, grid_search_id)

    def _accept(self, batch: bytes, grid_search_id: str | None) -> Acknowledgement:
        seq = self.state.seq
        known = self.log.last
        last: dict[str, int] = {}  # of this batch; becomes the log's own once it is on disk
        expected: dict[str, int] = {}
        lines: list[bytes] = []
        events: list[Event] = []
        sent = [line for line in batch.split(b"\n") if line]
        rejected = 0
        ordinary = _is_ordinary(batch, sent)
        whole = batch if len(sent) == batch.count(b"\n") and batch.endswith(b"\n") else b"\n".join([*sent, b""])
        for line, event in zip(sent, decode_lines(whole), strict=True):
            body = body_of(line)
            if body is None or too_deep(line) or not (ordinary or _may_be_numbered(line)):
                rejected += 1
                continue
            if isinstance(event, Unknown):
                identity = _identity(line, event, grid_search_id)
                if identity is None:
                    rejected += 1
                    continue
                source, n = identity
            else:
                source, n = event.source, event.n
                if n < 1 or not source or grid_search_id not in (None, event.payload.grid_search_id):
                    rejected += 1
                    continue
            before = last.get(source)
            if before is None:
                before = last[source] = known.get(source, 0)
            if n <= before:
                continue
            if n > before + 1:
                expected[source] = before + 1
                continue
            last[source] = n
            seq += 1
            lines.append(seal(b'{"seq":%d,%b' % (seq, body[1:])))
            msgspec.structs.force_setattr(event, "seq", seq)
            events.append(event)
        if lines:
            data = b"".join(lines)
            end = self._journal.append(data) if self._journal else self.log.end + len(data)
            self.log.take(data, end, events)
            if self._journal:
                self.log.save(every=_SAVE_EVERY)
            self._notify(events)
        return Acknowledgement(last, expected, rejected)

    def _notify(self, events: list[Event]) -> None:
        for subscriber in list(self._subscribers):
            try:
                subscriber(events, self.state)
            except Exception:  # whoever only watches must not be able to stop the log
                self._subscribers.remove(subscriber)

    def close(self) -> None:
        if self._journal:
            self.log.save()
            self._journal.close()


_SAVE_EVERY = 200_000
"""Events between two savings of the state of a log that is being written."""


def _is_ordinary(batch: bytes, lines: list[bytes]) -> bool:
    """Whether a look at the whole batch shows that nothing is wrong with any line that `_may_be_numbered` finds."""
    return (
        len(batch) <= MAX_EVENT
        and batch.isascii()
        and b'"seq"' not in batch
        and (b"\\" not in batch or b"\\u" not in batch)  # which can spell it otherwise
        and batch.count(b'"crc"') == len(lines)
        and all([line.startswith(b'{"') for line in lines])  # noqa: C419 (half the time)
    )


def _may_be_numbered(line: bytes) -> bool:
    """Whether a number can be put into a line, so that what comes out is strict JSON and has one number."""
    if len(line) > MAX_EVENT or not line.startswith(b'{"') or not _is_text(line):
        return False
    suspicious = b'"seq"' in line or b"\\u" in line or line.count(b'"crc"') > 1
    return not (suspicious and _has_place(line))


def _identity(line: bytes, event: Unknown, grid_search_id: str | None) -> tuple[str, int] | None:
    """Who sent an event of a type that is not known here, as which of its events; None when it is no event."""
    if event.data is None:
        return None
    try:
        identity = _identify(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if grid_search_id is not None and _claimed(event.data) not in (None, grid_search_id):
        return None
    return (identity.source, identity.n) if identity.source and identity.n > 0 else None


def _is_text(line: bytes) -> bool:
    try:
        return line.isascii() or bool(line.decode())
    except UnicodeDecodeError:
        return False


def _has_place(line: bytes) -> bool:
    """Whether an event brings what only the hub gives."""
    try:
        pairs = json.loads(line, object_pairs_hook=list)
    except ValueError:
        return True
    names = [name for name, _ in pairs]
    return "seq" in names or names.count("crc") > 1


def _claimed(data: object) -> object:
    payload = data.get("payload") if isinstance(data, dict) else None
    return payload.get("grid_search_id") if isinstance(payload, dict) else None
