"""An append-only file of lines that proves its own integrity. Imports errors and events.

The spool of a worker and the event log are both this. A crash can leave a torn last line, or blocks of
nothing after it; such a tail is copied to `<name>.torn` and cut off by the next writer. A bad line with a good
one after it is damage: the file is then read around it, and never written again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from mlgym.errors import DamagedError, InUseError, StorageError
from mlgym.record.events import body_of

_CHUNK = 1 << 20


class Block(NamedTuple):
    """Whole good lines that stand together in a journal, and the offset after them."""

    lines: bytes
    end: int
    damaged: int = 0
    """How many bytes right before these lines were skipped, because no crc fits them."""


def read_blocks(path: Path, offset: int = 0) -> Iterator[Block]:
    """The good lines of the journal at `path` from byte `offset`, in blocks of about 1 MiB.

    A bad line is skipped once a good one follows it; a bad tail (or a line that is being written right
    now) is left alone, so that the last block's `end` is where to read on later.
    """
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from None
    with file:
        file.seek(offset)
        rest = b""
        skipped = 0  # bytes of bad lines between `offset` and `rest`
        while chunk := file.read(_CHUNK):
            lines, newline, rest = (rest + chunk).rpartition(b"\n")
            if not newline:
                continue
            for good, run in _runs(lines + newline):
                if good:
                    offset += skipped + len(run)
                    yield Block(run, offset, skipped)
                    skipped = 0
                else:
                    skipped += len(run)


def _runs(data: bytes) -> Iterator[tuple[bool, bytes]]:
    """`data`, whole lines, as alternating runs of lines that are good and lines that are not."""
    good, start, position = True, 0, 0
    for line in data.split(b"\n")[:-1]:
        if (body_of(line) is not None) != good:
            if position > start:
                yield good, data[start:position]
            good, start = not good, position
        position += len(line) + 1
    if position > start:
        yield good, data[start:position]


class Journal:
    """The one writer of a journal.

    Opening takes the file's flock (`InUseError` when another process has it), cuts a torn tail and leaves
    `end`, the offset for the next line. What stands before byte `start` is known to be good. `fsync="batch"` makes
    every `append` durable against power loss; with "never" an append survives the death of the process, but not that
    of the machine.
    """

    def __init__(self, path: Path, fsync: Literal["batch", "never"] = "never", start: int = 0) -> None:
        self.path = path
        self._fsync = fsync == "batch"
        self.damaged = 0
        self._failed = False
        created, held = not path.exists(), False
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageError(f"{path}: cannot be written: {error.strerror}") from None
        try:
            flock(self._fd, path)
            held = True
            self.end = self._verify(start)
            if created and self._fsync:
                for folder in [*path.parents][:3]:  # which may be as new as the log
                    sync(folder)
        except BaseException as error:
            if created and held and not os.fstat(self._fd).st_size:
                path.unlink(missing_ok=True)  # or the next one would not make its name durable
            os.close(self._fd)
            if isinstance(error, OSError):
                raise StorageError(f"{path}: cannot be written: {error.strerror}") from None
            raise

    def _verify(self, end: int) -> int:
        for block in read_blocks(self.path, end):
            self.damaged += block.damaged
            end = block.end
        size = os.fstat(self._fd).st_size
        if self.damaged:
            return size
        if size > end:
            torn = os.pread(self._fd, size - end, end)
            with self.path.with_name(self.path.name + ".torn").open("ab") as file:
                file.write(torn)
                file.flush()
                os.fsync(file.fileno())
            os.ftruncate(self._fd, end)
            os.fsync(self._fd)
        return end

    def append(self, lines: bytes) -> int:
        """Write whole lines and return the offset after them.

        Raises `StorageError` when they could not be written (the disk is full, say): then none of them is
        there, and the same append may be tried again (unless the disk failed to say what it holds).
        """
        if self.damaged:
            raise DamagedError(
                f"{self.path}: {self.damaged} bytes in its middle are damaged; it can be read, but is not "
                "written any more"
            )
        if self._fsync and os.fstat(self._fd).st_nlink == 0:
            raise StorageError(f"{self.path}: was deleted")
        if self._failed:
            raise StorageError(f"{self.path}: an earlier write failed, and nobody can say what is on the disk")
        try:
            written = os.write(self._fd, lines)
            while written < len(lines):  # a signal or a full disk: the next write says which
                written += os.write(self._fd, lines[written:])
        except OSError as error:
            try:
                os.ftruncate(self._fd, self.end)
            except OSError:
                self._failed = True
            raise StorageError(f"{self.path}: cannot be written: {error.strerror}") from error
        if self._fsync:
            try:
                os.fdatasync(self._fd)
            except OSError as error:
                # It may have dropped pages that it will never report again. Cut off, nobody can take them for durable.
                self._failed = True
                with suppress(OSError):
                    os.ftruncate(self._fd, self.end)
                raise StorageError(f"{self.path}: cannot be made durable: {error.strerror}") from error
        self.end += len(lines)
        return self.end

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)  # a forked child may still hold a copy of the descriptor
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def last_line(fd: int) -> bytes | None:
    """The last good line of an open journal (without its newline), read from its end; None when there is none."""
    size = os.fstat(fd).st_size
    length = 1 << 16
    while True:
        start = max(0, size - length)
        lines = os.pread(fd, size - start, start).split(b"\n")[:-1]  # what follows the last newline is torn
        for line in reversed(lines[1:] if start else lines):
            if body_of(line) is not None:
                return line
        if start == 0:
            return None
        length *= 4


def sync(path: Path) -> None:
    """Make a file durable, or the names in a directory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def is_held(path: Path) -> bool:
    """Whether a process holds the flock of a file."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def flock(fd: int, path: Path) -> None:
    """Hold the file exclusively until it is closed. Raises `InUseError` when another process holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUseError(f"{path}: in use by another process") from None
