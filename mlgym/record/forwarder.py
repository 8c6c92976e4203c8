"""Carry the spools of a grid search to where the log is kept: in order, resent until acknowledged.

A thread for each destination tails every spool in a folder, sends one batch at a time and goes on from what the
destination says it has. A spool is deleted whole, once its process has ended and its last event is acknowledged
by all of them. Imports events, journal and hub.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import msgspec

from mlgym.errors import StorageError, tell
from mlgym.record.events import Identity
from mlgym.record.hub import Acknowledgement
from mlgym.record.journal import is_held, read_blocks

MAX_EVENTS = 500
MAX_BYTES = 256 * 1024
_MAX_PAUSE = 30.0  # seconds

Destination = Callable[[bytes], Acknowledgement]
"""Takes a batch of spool lines and says what of it is safe; raises `StorageError` to be asked again later."""


class Forwarder:
    """Delivers every spool below `folder`, those that appear later as well, to every destination, until `close`.

    `pattern` chooses among the spools by name.
    """

    def __init__(
        self, folder: Path, *destinations: Destination, interval: float = 0.025, pattern: str = "*.jsonl"
    ) -> None:
        self._folder = folder
        spools = _Spools(folder, pattern, len(destinations))
        self._carriers = [_Carrier(spools, destination, interval) for destination in destinations]

    def drain(self, timeout: float = 60) -> bool:
        """Deliver what there is to the first destination. False when that could not be done in `timeout` seconds."""
        return self._carriers[0].drain(timeout)

    def close(self, timeout: float = 60, patience: float = 0) -> bool:
        """Deliver what there is and stop. False when something could not be delivered in `timeout` seconds.

        A destination that fails is tried again for `patience` seconds.
        """
        end = time.monotonic() + timeout
        for carrier in self._carriers:
            carrier.stop(patience)
        delivered = [carrier.stopped(end - time.monotonic()) for carrier in self._carriers]
        return all(delivered) and self._folder.is_dir()

    def undelivered(self) -> list[int]:
        """Bytes in the spools that each destination has not acknowledged."""
        return [carrier.undelivered() for carrier in self._carriers]


class _Spools:
    """The spools in a folder, and how many destinations have finished with each."""

    def __init__(self, folder: Path, pattern: str, destinations: int) -> None:
        self.folder = folder
        self._pattern = pattern
        self._destinations = destinations
        self._finished: dict[str, int] = {}
        self._broken: set[str] = set()
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        return sorted(entry.name for entry in os.scandir(self.folder) if fnmatch(entry.name, self._pattern))

    def finished(self, name: str, broken: bool) -> None:
        """A destination has all of an ended spool, or can have no more of it."""
        with self._lock:
            self._finished[name] = self._finished.get(name, 0) + 1
            if broken:
                self._broken.add(name)
            if self._finished[name] < self._destinations:
                return
            del self._finished[name]
            path = self.folder / name
            if name in self._broken:  # out of the way of the next run, which could do no better
                path.rename(path.with_suffix(".damaged"))
            else:
                path.unlink(missing_ok=True)


@dataclass
class _Tail:
    """How far one spool has been delivered."""

    path: Path
    offset: int = 0
    broken: bool = False
    """It cannot be delivered further: events in its middle are damaged or were refused."""
    finished: bool = False


class _Carrier:
    """Delivers to one destination."""

    def __init__(self, spools: _Spools, destination: Destination, interval: float) -> None:
        self._spools = spools
        self._destination = destination
        self._interval = interval
        self._tails: dict[str, _Tail] = {}
        self._closing = threading.Event()
        self._wanted = threading.Event()
        self._drained = threading.Event()
        self._warned = False
        self._failed = False
        self._gave_up = False
        self._give_up_at = 0.0
        self._thread = threading.Thread(target=self._run, name="forwarder", daemon=True)
        self._thread.start()

    def drain(self, timeout: float) -> bool:
        self._drained.clear()
        self._wanted.set()
        return self._drained.wait(timeout) and not self._failed

    def stop(self, patience: float) -> None:
        self._give_up_at = time.monotonic() + patience
        self._closing.set()

    def stopped(self, timeout: float) -> bool:
        """Wait for the end; whether everything has been delivered."""
        self._thread.join(max(0, timeout))
        return not (self._thread.is_alive() or self._failed or self._gave_up)

    def undelivered(self) -> int:
        tails = dict(self._tails)
        found = 0
        try:
            for entry in os.scandir(self._spools.folder):
                if entry.name.endswith(".jsonl"):
                    tail = tails.get(entry.name)
                    found += entry.stat().st_size - (tail.offset if tail else 0)
        except OSError:
            pass
        return found

    def _run(self) -> None:
        pause = self._interval
        while True:
            closing = self._closing.is_set()  # read first: what was emitted before it is then seen below
            wanted = self._wanted.is_set()
            try:
                delivered = self._deliver()
                self._failed = False
                pause = self._interval
            except (StorageError, OSError) as error:
                self._warn(f"events are waiting on disk: {error}")
                delivered = False
                self._failed = True
                pause = min(max(2 * pause, 0.5), _MAX_PAUSE) * random.uniform(0.8, 1)
            if wanted and not delivered:
                self._wanted.clear()
                self._drained.set()
            if delivered:
                continue
            if not closing:
                self._closing.wait(pause)
            elif self._failed and time.monotonic() < self._give_up_at:
                time.sleep(min(pause, 1))
            else:
                return

    def _deliver(self) -> bool:
        """Send what is new in every spool. False when there was nothing. Raises `StorageError` or `OSError`."""
        delivered = False
        names = self._spools.names()
        for gone in self._tails.keys() - set(names):
            del self._tails[gone]
        for name in names:
            tail = self._tails.setdefault(name, _Tail(self._spools.folder / name))
            if tail.finished:
                continue
            ended = not is_held(tail.path)  # asked before reading: nothing can be written after a "yes"
            while not tail.broken and self._deliver_block(tail):
                delivered = True
                if not ended:
                    break  # the others' turn; but what has ended comes whole before what began later
            else:
                if ended:
                    tail.finished = True
                    self._spools.finished(name, tail.broken)
        return delivered

    def _deliver_block(self, tail: _Tail) -> bool:
        """Send up to one block of a spool, in batches; True when there was something to send."""
        block = next(read_blocks(tail.path, tail.offset), None)
        if block is None:
            return False
        position = block.end - len(block.lines)
        for batch in batches(block.lines):
            answer = self._destination(batch)
            if answer.rejected or block.damaged:
                self._give_up(tail, "lines in its middle are damaged")
                return False
            if answer.expected:  # it lacks earlier events: again from the start, it skips what it has
                if tail.offset == 0:
                    self._give_up(tail, "the destination asks for older events than there are")
                    return False
                tail.offset = 0
                return True
            source, n = _last(batch)
            if answer.durable.get(source, 0) < n:
                raise StorageError("the destination does not acknowledge what it was sent")
            position += len(batch)
            tail.offset = position
        return True

    def _give_up(self, tail: _Tail, why: str) -> None:
        tail.broken = self._gave_up = True
        tell(f"warning: {tail.path} stays undelivered: {why}")

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            tell(f"warning: {message}")


_identify = msgspec.json.Decoder(Identity).decode


def _last(batch: bytes) -> tuple[str, int]:
    """Source and number of the last event in a batch from one spool."""
    identity = _identify(batch[batch.rfind(b"\n", 0, -1) + 1 :])
    return identity.source, identity.n


def batches(lines: bytes) -> list[bytes]:
    """`lines` cut into batches of at most 500 events and 256 KiB (a single event may be larger)."""
    result: list[bytes] = []
    start = count = 0
    position = 0
    while position < len(lines):
        end = lines.index(b"\n", position) + 1
        if count and (count == MAX_EVENTS or end - start > MAX_BYTES):
            result.append(lines[start:position])
            start, count = position, 0
        position = end
        count += 1
    if count:
        result.append(lines[start:])
    return result
