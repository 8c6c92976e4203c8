"""Carry the spools of a grid search to where the log is kept: in order, resent until acknowledged.

One thread tails every spool in a folder, sends one batch at a time and goes on from what the destination says
it has. A spool is deleted whole, once its process has ended and its last event is acknowledged.
Imports events, journal and hub.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlgym.errors import StorageError, tell
from mlgym.record.hub import Acknowledgement
from mlgym.record.journal import is_held, read_blocks

MAX_EVENTS = 500
MAX_BYTES = 256 * 1024

Destination = Callable[[bytes], Acknowledgement]
"""Takes a batch of spool lines and says what of it is safe; raises `StorageError` to be asked again later."""


@dataclass
class _Tail:
    """How far one spool has been delivered."""

    path: Path
    offset: int = 0
    broken: bool = False
    """It cannot be delivered further: events in its middle are damaged or were refused."""


class Forwarder:
    """Delivers every spool below `folder`, those that appear later as well, until `close`."""

    def __init__(self, folder: Path, destination: Destination, interval: float = 0.05) -> None:
        self._folder = folder
        self._destination = destination
        self._interval = interval
        self._tails: dict[str, _Tail] = {}
        self._closing = threading.Event()
        self._wanted = threading.Event()
        self._drained = threading.Event()
        self._warned = False
        self._failed = False
        self._gave_up = False
        self._thread = threading.Thread(target=self._run, name="forwarder", daemon=True)
        self._thread.start()

    def drain(self, timeout: float = 60) -> bool:
        """Deliver what there is. False when that could not be done in `timeout` seconds."""
        self._drained.clear()
        self._wanted.set()
        return self._drained.wait(timeout) and not self._failed

    def close(self, timeout: float = 60) -> bool:
        """Deliver what there is and stop. False when something could not be delivered in `timeout` seconds."""
        self._closing.set()
        self._thread.join(timeout)
        delivered = not self._thread.is_alive() and self._folder.is_dir() and not any(self._folder.glob("*.jsonl"))
        return delivered and not self._failed and not self._gave_up

    def _run(self) -> None:
        pause = self._interval
        while True:
            closing = self._closing.is_set()  # read first: what was emitted before it is then seen below
            wanted = self._wanted.is_set()
            try:
                delivered = self.deliver()
                self._failed = False
                pause = self._interval
            except (StorageError, OSError) as error:
                self._warn(f"events are waiting on disk: {error}")
                delivered = False
                self._failed = True
                pause = min(max(2 * pause, 0.5), 30)
            if wanted and not delivered:
                self._wanted.clear()
                self._drained.set()
            if closing and not delivered:
                return
            if not delivered:
                self._closing.wait(pause)

    def deliver(self) -> bool:
        """Send what is new in every spool. False when there was nothing. Raises `StorageError` or `OSError`."""
        delivered = False
        names = sorted(entry.name for entry in os.scandir(self._folder) if entry.name.endswith(".jsonl"))
        for name in names:
            tail = self._tails.setdefault(name, _Tail(self._folder / name))
            if tail.broken:
                continue
            ended = not is_held(tail.path)  # asked before reading: nothing can be written after a "yes"
            while self._deliver_block(tail):
                delivered = True
                if not ended:
                    break  # the others' turn; but what has ended comes whole before what began later
            else:
                if ended and not tail.broken:
                    tail.path.unlink()
                    del self._tails[name]
                elif ended:  # out of the way of the next run, which could do no better
                    tail.path.rename(tail.path.with_suffix(".damaged"))
                    del self._tails[name]
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
