"""The checkpoints in an experiment's folder: which there are, and whether they are whole. Does not import torch."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import zlib
from pathlib import Path
from typing import Literal

import msgspec

from mlgym.errors import DamagedError
from mlgym.record.events import CheckpointFile
from mlgym.specs import Checkpoint

MANIFEST = "manifest.json"
RESOURCE = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
"""The names that files of a checkpoint have."""

_NAME = re.compile(r"(\d+)(?:-(\d+))?")


class Manifest(msgspec.Struct, frozen=True):
    """What a checkpoint consists of, written last. `delete`: the epochs that it replaces."""

    epoch: int
    batch: int
    files: list[CheckpointFile]
    delete: list[int]
    format: Literal[1] = 1
    crc: str = ""
    """crc32 of this without it."""

    def sealed(self) -> bytes:
        """As JSON that proves its own integrity."""
        return msgspec.json.encode(msgspec.structs.replace(self, crc=self._crc()))

    def _crc(self) -> str:
        return f"{zlib.crc32(msgspec.json.encode(msgspec.structs.replace(self, crc=''))):08x}"

    def fits(self, checkpoint: Checkpoint) -> bool:
        return self.crc == self._crc() and (self.epoch, self.batch) == (checkpoint.epoch, checkpoint.batch)


def available(folder: Path) -> list[Checkpoint]:
    """The checkpoints that were committed to an experiment's folder, the newest first; not verified."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            if (match := _NAME.fullmatch(path.name)) and (path / MANIFEST).is_file():
                found.append(Checkpoint(int(match[1]), str(path), int(match[2] or 0)))
    return sorted(found, key=lambda checkpoint: (checkpoint.epoch, checkpoint.batch), reverse=True)


def newest(folder: Path) -> Checkpoint | None:
    """The newest of `available`."""
    return next(iter(available(folder)), None)


def verified(checkpoint: Checkpoint) -> Manifest:
    """The manifest of a checkpoint whose files are what it says. Raises `DamagedError`."""
    folder = Path(checkpoint.directory)
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamagedError(f"{folder / MANIFEST}: cannot be read: {error}") from None
    if not manifest.fits(checkpoint):
        raise DamagedError(f"{folder / MANIFEST}: not what was written, by its crc or its epoch")
    for file in manifest.files:
        if not re.fullmatch(RESOURCE, file.name):
            raise DamagedError(f"{folder / MANIFEST}: {file.name!r} is no name of a file")
        try:
            with (folder / file.name).open("rb") as opened:
                size = os.fstat(opened.fileno()).st_size
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise DamagedError(f"{folder / file.name}: cannot be read: {error.strerror}") from None
        if (size, digest) != (file.size, file.sha256):
            raise DamagedError(f"{folder / file.name}: not what was saved, by its size or sha256")
    return manifest


def remove(path: Path) -> None:
    """A checkpoint is gone by its name before its files go: nobody sees half of one."""
    gone = path.with_name(f".gone-{path.name}")
    shutil.rmtree(gone, ignore_errors=True)  # of a deletion that was cut off
    try:
        path.rename(gone)
    except FileNotFoundError:
        return
    shutil.rmtree(gone, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """What a process that was killed had begun to write, or to delete."""
    for pattern in (".new-*", ".gone-*"):
        for left in folder.glob(pattern):
            shutil.rmtree(left, ignore_errors=True)
