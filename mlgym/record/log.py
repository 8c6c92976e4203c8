"""Reading an event log: its state, who has sent what, and where each event stands; also while it is being written.

A log of millions of events is folded once: what is known of it is saved beside it, and is rebuilt when that is
missing, older than the code that folds, damaged, or not about this log.
"""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from mlgym.errors import InputError, StorageError, one_of
from mlgym.record.events import Event, Unknown, body_of, decode_lines
from mlgym.record.fold import State, fold_all
from mlgym.record.journal import read_blocks
from mlgym.record.old_log import Converter, is_old
from mlgym.record.scores import Scores
from mlgym.specs import RunPaths

T = TypeVar("T")

_STEP = 64 * 1024  # bytes of the log to an entry of the index
_PIECE = 1 << 20  # bytes that are read at once
_PROBE = 4096  # bytes at the beginning and before the end of what was folded, by which a log is recognised
_WORTH_SAVING = 20_000  # events; fewer are folded faster than anybody could notice
_SHARE = 10  # a growing log is saved again when it has grown by a tenth: all saving together stays linear in its size


class Log:
    """What is known of the event log at `path` up to byte `end`. Methods may be called from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = State()
        self.last: dict[str, int] = {}
        """source -> number of its last event"""
        self.end = 0
        self._seen = 0
        """The same, in what is read: of an old log, what it has been made into."""
        self._seqs = array("q")
        self._offsets = array("q")
        self._saved = 0  # seq of the saved state
        self._lock = threading.Lock()
        self._converter: Converter | None = None
        self._converted = -1
        """A file without a name: an old log, numbered."""
        self._inode = 0
        self._mark = b""

    @classmethod
    def load(cls, path: Path) -> Log:
        """The whole log. Raises `InputError` when there is none."""
        if not path.is_file():
            raise InputError(f"{path}: there is no event log")
        log = cls(path)
        log._restore()
        log.refresh()
        return log

    @property
    def old(self) -> bool:
        """Whether it was written by an earlier tool: it can be read, not added to."""
        return self._converter is not None

    def refresh(self, seen: Callable[[list[Event]], None] = lambda _: None) -> bool:
        """Read what has been appended since, and pass it on in pieces; False when there was nothing.

        Raises `StorageError` when the log is no longer the one that was read before.
        """
        with self._lock:
            try:
                return self._refresh(seen)
            except OSError as error:
                raise StorageError(f"{self.path}: cannot be read: {error.strerror}") from None

    def _refresh(self, seen: Callable[[list[Event]], None]) -> bool:
        before = self.state.seq
        status = self.path.stat()
        if (
            self._inode not in (0, status.st_ino)
            or status.st_size < self.end
            or (status.st_size > self.end and self._mark not in (b"", self._before(self.end)))
        ):
            raise StorageError(f"{self.path}: has been replaced")
        self._inode = status.st_ino
        if self._converter or (self.end == 0 and self._begins_old()):
            self._convert(seen)
        else:
            for block in read_blocks(self.path, self.end):
                self.state.damaged += block.damaged
                seen(self._take(block.lines, block.end))
        if self.state.seq == before:
            return False
        self._mark = self._before(self.end)
        if self.state.seq - self._saved >= max(_WORTH_SAVING, self.state.seq // _SHARE):
            self._save()
        return True

    def _before(self, end: int) -> bytes:
        """A few bytes by which the log is known again."""
        with self.path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), min(end, 64), max(0, end - 64))

    def take(self, lines: bytes, end: int, events: list[Event]) -> None:
        """`lines`, now in the log up to byte `end`, hold these events."""
        with self._lock:
            self._take(lines, end, events)
            self._mark = b""

    def _take(self, lines: bytes, end: int, events: list[Event] | None = None) -> list[Event]:
        if events is None:
            events = decode_lines(lines)
        start = end - len(lines)
        position = count = 0
        while position < len(lines):
            if not self._offsets or start + position - self._offsets[-1] >= _STEP:
                self._seqs.append(events[count].seq)
                self._offsets.append(start + position)
            cut = lines.rfind(b"\n", position, position + _STEP) + 1 or lines.index(b"\n", position) + 1
            count += lines.count(b"\n", position, cut)
            position = cut
        self.last.update(last_numbers(events))
        fold_all(self.state, events)
        self.end = self._seen = end
        return events

    def look(self, function: Callable[[State], T]) -> T:
        """What `function` finds in the state, which stays as it is meanwhile."""
        with self._lock:
            return function(self.state)

    def lines(self, after: int, limit: int, max_bytes: int = 1 << 20) -> list[bytes]:
        """The events after number `after` in their order, as lines without newline: up to `limit` of them and (but
        for the first) `max_bytes`."""
        found: list[bytes] = []
        if after >= self.state.seq or limit < 1:
            return found
        at = max(0, bisect_right(self._seqs, after + 1) - 1)
        offset = self._offsets[at] if len(self._offsets) > at else 0
        size = 0
        rest = b""
        end = self._seen  # what is written and not yet durable may still be taken back
        with self._opened() as file:
            while chunk := os.pread(file.fileno(), min(4 * _STEP, end - offset), offset):
                offset += len(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if body_of(line) is None or not line.startswith(b'{"seq":'):
                        continue
                    if int(line[7 : line.find(b",")]) <= after:
                        continue
                    size += len(line)
                    if len(found) == limit or (size > max_bytes and found):
                        return found
                    found.append(line)
        return found

    def forwards(self, after: int) -> Iterator[bytes]:
        """What the file holds from event `after + 1` (or a little before it) to the last, whole lines, in pieces of
        about 1 MiB. Lines are not checked: with damage, some are no events."""
        at = max(0, bisect_right(self._seqs, after + 1) - 1)
        offset = self._offsets[at] if len(self._offsets) > at else 0
        rest = b""
        with self._opened() as file:
            while chunk := os.pread(file.fileno(), min(_PIECE, self._seen - offset), offset):
                offset += len(chunk)
                lines, newline, rest = (rest + chunk).rpartition(b"\n")
                if newline:
                    yield lines + newline

    def backwards(self, before: int) -> Iterator[bytes]:
        """What the file holds from event `before - 1` (or a little after it) to the first, as `forwards` has it, but
        piece by piece from behind."""
        at = bisect_left(self._seqs, before)
        end = self._offsets[at] if at < len(self._offsets) else self._seen
        with self._opened() as file:
            while at > 0:
                at = max(0, min(at - 1, bisect_right(self._offsets, end - _PIECE)))
                yield os.pread(file.fileno(), end - self._offsets[at], self._offsets[at])
                end = self._offsets[at]

    def events(self, after: int, until: int) -> Iterator[list[Event]]:
        """The events after number `after` up to number `until`, decoded, in pieces."""
        for piece in self.forwards(after):
            lines = piece.split(b"\n")
            good = [line for line in lines if body_of(line) is not None]
            events = decode_lines(piece if len(good) == len(lines) - 1 else b"".join(line + b"\n" for line in good))
            if events and (events[0].seq <= after or events[-1].seq > until):
                yield [event for event in events if after < event.seq <= until]
            else:
                yield events
            if events and events[-1].seq >= until:
                return

    def _opened(self) -> IO[bytes]:
        if self._converter is not None:
            return os.fdopen(os.dup(self._converted), "rb", buffering=0)
        return self.path.open("rb", buffering=0)

    # --- old logs ---

    def _begins_old(self) -> bool:
        with self.path.open("rb") as file:
            return is_old(file.read(_STEP))

    def _convert(self, seen: Callable[[list[Event]], None]) -> None:
        """An old log is numbered into a file without a name, which is then read like any other."""
        if self._converter is None:
            self._converted, name = tempfile.mkstemp(prefix="mlgym-")
            weakref.finalize(self, os.close, self._converted)
            Path(name).unlink()
            self._converter = Converter("old-log")
        with self.path.open("rb") as file:
            file.seek(self.end)
            while chunk := file.read(1 << 20):
                self.end += len(chunk)
                self._number(self._converter.feed(chunk), seen)
        self._number(self._converter.finish_whole(), seen)

    def _number(self, lines: bytes, seen: Callable[[list[Event]], None]) -> None:
        assert self._converter is not None
        self.state.damaged = self._converter.unread_bytes
        if lines:
            end = self.end
            with os.fdopen(os.dup(self._converted), "ab") as file:
                file.write(lines)
            seen(self._take(lines, os.fstat(self._converted).st_size))
            self.end = end

    # --- saved state ---

    @property
    def _saved_at(self) -> Path:
        return self.path.with_suffix(".snapshot")

    def save(self, every: int | None = None) -> None:
        """Save what is known, if so many events (and, with `every`, a tenth of all) have come since the last time."""
        if self.state.seq - self._saved >= (max(every, self.state.seq // _SHARE) if every else _WORTH_SAVING):
            with self._lock:
                self._save()

    def _save(self) -> None:
        if self.old:
            return
        temporary = self._saved_at.with_suffix(".snapshot-new")
        self._saved = self.state.seq  # also when it fails: not again for each batch
        try:
            with self.path.open("rb") as file:
                head, tail = _probes(file, self.end)
            columns = (self._seqs.tobytes(), self._offsets.tobytes())
            saved = _Saved(self.end, head, tail, self.last, columns, self.state)
            content = _encode(saved)
            with temporary.open("wb") as file:
                file.write(b"%08x" % zlib.crc32(content, _code()))
                file.write(content)  # apart, or it would be in memory once more
            temporary.rename(self._saved_at)
        except (OSError, OverflowError, TypeError, ValueError, msgspec.MsgspecError):
            with suppress(OSError):
                temporary.unlink()  # it only saves time

    def _restore(self) -> None:
        try:
            content = self._saved_at.read_bytes()
            if content[:8] != b"%08x" % zlib.crc32(memoryview(content)[8:], _code()):
                return
            saved = _decode(memoryview(content)[8:])
            with self.path.open("rb") as file:
                if (saved.head, saved.tail) != _probes(file, saved.end):
                    return
                if os.fstat(file.fileno()).st_size < saved.end:
                    return
            mark = self._before(saved.end)
            self._seqs.frombytes(saved.columns[0])
            self._offsets.frombytes(saved.columns[1])
        except (OSError, ValueError, msgspec.MsgspecError):
            return
        self.end, self.last, self.state = saved.end, saved.last, saved.state
        self._seen, self._mark, self._saved = saved.end, mark, saved.state.seq


class _Saved(msgspec.Struct, array_like=True):
    end: int
    head: int
    tail: int
    last: dict[str, int]
    columns: tuple[bytes, bytes]
    state: State


def _pack(value: Any) -> Any:
    if isinstance(value, Scores):
        return value.packed()
    if isinstance(value, array):
        return value.typecode, value.tobytes()
    raise NotImplementedError


def _unpack(type_: type, value: Any) -> Any:
    if type_ is Scores:
        return Scores.unpacked(value)
    return array(value[0], value[1])


_encode = msgspec.msgpack.Encoder(enc_hook=_pack).encode
_decode = msgspec.msgpack.Decoder(_Saved, dec_hook=_unpack).decode
_decode_state = msgspec.msgpack.Decoder(State, dec_hook=_unpack).decode


def packed(state: State) -> bytes:
    """A state as bytes. Raises `OverflowError` when a number in it has more than 64 bits."""
    return _encode(state)


def unpacked(content: bytes | memoryview) -> State:
    """The state that `packed` was given, anew."""
    return _decode_state(content)


def _probes(file: IO[bytes], end: int) -> tuple[int, int]:
    fd = file.fileno()
    size = min(_PROBE, end)
    return zlib.crc32(os.pread(fd, size, 0)), zlib.crc32(os.pread(fd, size, end - size))


@cache
def _code() -> int:
    """A digest of the code that folds: the checksum of a saved state begins with it, so other code's never fits."""
    here = Path(__file__).parent
    return zlib.crc32(b"".join((here / name).read_bytes() for name in ("events.py", "fold.py", "scores.py", "log.py")))


def last_numbers(events: list[Event]) -> dict[str, int]:
    """source -> number of its last event among `events`, which are in order."""
    try:
        return {event.source: event.n for event in events}  # type: ignore[union-attr]
    except AttributeError:
        pass
    found = {}
    for event in events:
        if not isinstance(event, Unknown):
            found[event.source] = event.n
        elif isinstance(event.data, dict):
            source, n = event.data.get("source"), event.data.get("n")
            if isinstance(source, str) and isinstance(n, int):
                found[source] = n
    return found


def grid_search(event_storage: Path, grid_search_id: str) -> RunPaths:
    """The paths of a grid search whose log is in an event storage. Raises `InputError` when there is none."""
    if not event_storage.is_dir():
        raise InputError(f"{event_storage}: there is no event storage; name it with --event_storage_path")
    known = [path.parent.name for path in event_storage.glob("*/event_storage.log")]
    paths = RunPaths(event_storage, grid_search_id)
    if grid_search_id in known:
        return paths
    if grid_search_id and paths.run_config.is_file():
        raise InputError(f"the log of {grid_search_id} is on the servers that {paths.run_config} names, not here")
    raise InputError(f"there is no grid search {grid_search_id!r} in {event_storage}; {one_of(grid_search_id, known)}")


def read_state(log: Path, spools: Path | None = None) -> State:
    """The state that the event log at `log` describes, also while it is being written.

    With `spools`, a folder, what lies there undelivered is taken in as well: it comes after all that was.
    """
    state = Log.load(log).state
    for spool in sorted(spools.glob("*.jsonl")) if spools else []:
        for block in read_blocks(spool):  # what was delivered before changes nothing when folded again
            fold_all(state, decode_lines(block.lines))
    return state
