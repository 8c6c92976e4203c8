"""A journal survives being cut or damaged at any byte."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlgym.errors import DamagedError, InUseError, StorageError
from mlgym.record.events import body_of, seal
from mlgym.record.journal import Journal, read_blocks

LINES = [seal(b'{"n":%d,"text":"%b"' % (i, b"x" * (i * 7 % 23))) for i in range(1, 6)]


def read(path: Path, offset: int = 0) -> list[bytes]:
    return [line for block in read_blocks(path, offset) for line in block.lines.splitlines(keepends=True)]


def test_append_and_read_on(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path, fsync="batch") as journal:
        end = journal.append(LINES[0] + LINES[1])
        assert read(path) == LINES[:2]
        journal.append(LINES[2])
    assert read(path, end) == [LINES[2]]
    assert read(tmp_path / "absent") == []


def test_blocks_cover_long_journals(tmp_path: Path) -> None:
    path = tmp_path / "j"
    lines = [seal(b'{"n":%d,"t":"%b"' % (i, b"y" * 997)) for i in range(3000)]
    path.write_bytes(b"".join(lines))
    blocks = list(read_blocks(path))
    assert len(blocks) > 1
    assert b"".join(block.lines for block in blocks) == path.read_bytes()
    assert blocks[-1].end == path.stat().st_size
    assert read(path, blocks[0].end) == lines[blocks[0].lines.count(b"\n") :]


@pytest.mark.parametrize("cut", range(len(b"".join(LINES)) + 1))
def test_cut_at_every_byte(tmp_path: Path, cut: int) -> None:
    data = b"".join(LINES)[:cut]
    path = tmp_path / "j"
    path.write_bytes(data)
    whole = [line for i, line in enumerate(LINES) if sum(map(len, LINES[: i + 1])) <= cut]
    torn = data[sum(map(len, whole)) :]

    assert read(path) == whole  # a reader never needs the repair
    with Journal(path) as journal:
        journal.append(LINES[4])
    assert read(path) == [*whole, LINES[4]]
    kept = path.with_name("j.torn")
    assert (kept.read_bytes() if kept.exists() else b"") == torn


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(b"".join(LINES)) - 1), change=st.integers(1, 255))
def test_damage_at_any_byte(tmp_path: Path, position: int, change: int) -> None:
    data = bytearray(b"".join(LINES))
    data[position] ^= change
    path = tmp_path / "j"
    path.with_name("j.torn").unlink(missing_ok=True)
    path.write_bytes(data)
    good = [line for line in bytes(data).split(b"\n")[:-1] if body_of(line) is not None]
    untouched = [line for line in LINES if line[:-1] in good]

    assert read(path) == untouched
    assert len(untouched) >= len(LINES) - 2  # a lost newline spoils two lines
    if untouched[-1:] == LINES[-1:]:  # damage in the middle: never cut, never written
        with Journal(path) as journal, pytest.raises(DamagedError, match="in its middle are damaged"):
            journal.append(LINES[0])
        assert path.read_bytes() == data
    else:  # a bad tail, as a crash leaves it
        with Journal(path) as journal:
            journal.append(LINES[0])
        assert read(path) == [*untouched, LINES[0]]
        assert path.with_name("j.torn").read_bytes() == data[sum(map(len, untouched)) :]


def test_one_writer(tmp_path: Path) -> None:
    with Journal(tmp_path / "j"), pytest.raises(InUseError, match="in use by another process"):
        Journal(tmp_path / "j")
    Journal(tmp_path / "j").close()


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """A real limit of the kernel on the file's size stands for the disk: the write is cut short by it."""
    path = tmp_path / "j"
    child = os.fork()
    if child == 0:  # the limit is for a process, and cannot be raised again
        code = 1
        try:
            import signal

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            with Journal(path) as journal:
                journal.append(LINES[0])
                resource.setrlimit(resource.RLIMIT_FSIZE, (len(LINES[0]) + 10, resource.RLIM_INFINITY))
                try:
                    journal.append(LINES[1])
                except StorageError as error:
                    assert isinstance(error.__cause__, OSError)
                    assert error.__cause__.errno == errno.EFBIG
                    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                    journal.append(LINES[2])
                    code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert read(path) == [LINES[0], LINES[2]]


def test_unwritable_place(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        Journal(tmp_path / "absent" / "j")
