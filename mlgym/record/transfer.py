"""Logs that move: to a server (`mlgym sync`), and from the format of an earlier tool (`mlgym import`).

Imports everything in record/ that delivers.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from mlgym.errors import InputError, InUseError, StorageError
from mlgym.record.delivery import Server
from mlgym.record.events import body_of, decode, decode_lines, seal
from mlgym.record.forwarder import Destination, batches
from mlgym.record.journal import flock, read_blocks, sync
from mlgym.record.log import Log, last_numbers
from mlgym.record.old_log import Converter, is_old
from mlgym.record.remote import Keeper, Refused, Remote, with_files
from mlgym.specs import GRID_SEARCH_ID, RunPaths


def send(paths: RunPaths, url: str, rest: str | None, token: str | None) -> tuple[int, str | None]:
    """Bring what is here of a grid search to the server at `url`: log, spools and, where there is REST, files.

    `rest`: where REST is, if not at `url` as well. Returns how many events were sent (those that the server had
    included), and where files went. Raises `InUseError` while the grid search runs, `StorageError` when the
    server does not take all of it.
    """
    spools = sorted(paths.spools.glob("*.jsonl"))
    if paths.log.is_file() and Log.load(paths.log).old:
        raise InputError(f"{paths.log}: was written by an earlier tool; `mlgym import` makes a log of it to be sent")
    with paths.lock.open("a") as lock:
        try:
            flock(lock.fileno(), paths.lock)
        except InUseError:
            raise InUseError(f"{paths.grid_search_id} is running, and delivers by itself") from None
        server = Server(url, paths.grid_search_id, token, f"mlgym sync, process {os.getpid()}")
        remote = Remote(rest or url, token)
        try:
            keeper = Keeper(remote, paths) if rest or _has_rest(remote) else None
            destination = with_files(server, keeper)
            sent = 0
            for lines in [*_unnumbered(paths.log), *(block.lines for spool in spools for block in read_blocks(spool))]:
                for batch in batches(lines):
                    _deliver(destination, batch, url)
                    sent += batch.count(b"\n")
        finally:
            server.close()
            remote.close()
    return sent, remote.url if keeper else None


def _has_rest(remote: Remote) -> bool:
    try:
        remote.get("/grid_searches")
    except Refused as refused:
        if refused.status == 404:
            return False
        raise
    return True


def _deliver(destination: Destination, batch: bytes, url: str) -> None:
    answer = destination(batch)
    missing = [source for source, n in last_numbers(decode_lines(batch)).items() if answer.durable.get(source, 0) < n]
    if answer.rejected or answer.expected or missing:
        raise StorageError(
            f"{url} has not taken all of it: {answer.rejected} rejected, earlier ones missing of {missing}"
        )


def _unnumbered(log: Path) -> Iterator[bytes]:
    """The lines of a log as their spools had them."""
    for block in read_blocks(log):
        bodies = (body_of(line) for line in block.lines.split(b"\n"))
        yield b"".join(seal(b"{" + body.partition(b",")[2]) for body in bodies if body)


# --- import -------------------------------------------------------------------------------------------------


def import_log(file: Path, event_storage: Path, grid_search_id: str | None = None) -> tuple[RunPaths, Converter]:
    """Make a numbered log of an old one. Without `grid_search_id`, it is the one that the events name.

    Raises `InputError` when it is no old log, or the grid search is there already.
    """
    new = event_storage / f".import-{os.getpid()}"
    try:
        with file.open("rb") as old:
            # Named by its content: another log is another source.
            converter = Converter(f"import-{hashlib.file_digest(old, 'sha256').hexdigest()[:16]}")
            old.seek(0)
            head = old.read(64 * 1024)
            if not is_old(head):
                raise InputError(f"{file}: this is no log of the old format: lines with event_type, and without crc")
            new.mkdir(parents=True)
            with (new / "event_storage.log").open("xb") as log:
                chunk = head
                while chunk:
                    log.write(converter.feed(chunk))
                    chunk = old.read(1 << 20)
                log.write(converter.finish())
                log.flush()
                os.fsync(log.fileno())
        paths = RunPaths(
            event_storage, grid_search_id or _named(new / "event_storage.log") or file.resolve().parent.name
        )
        if not re.fullmatch(GRID_SEARCH_ID, paths.grid_search_id):
            raise InputError(f"{paths.grid_search_id!r} is no id of a grid search; give one with --grid_search_id")
        if paths.root.exists():
            raise InputError(f"{paths.root} is there already; give another id with --grid_search_id")
        (new / "spool").mkdir()
        (new / "lock").touch()
        new.rename(paths.root)
        sync(event_storage)
    except OSError as error:
        raise StorageError(f"{error.filename or file}: {error.strerror}") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return paths, converter


def _named(log: Path) -> str | None:
    """The id that the first events give."""
    for block in read_blocks(log):
        for line in block.lines.split(b"\n")[:100]:
            payload = getattr(decode(line), "payload", None)
            if payload is not None and re.fullmatch(GRID_SEARCH_ID, payload.grid_search_id):
                return str(payload.grid_search_id)
        break
    return None
