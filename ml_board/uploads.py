"""Checkpoints that come through REST: file by file beside the others, whole or not at all. Imports refusal and store.

.upload-<epoch>/<resource> ──manifest, sent last, verifies──► <epoch>/
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from ml_board.refusal import Refusal
from ml_board.store import Store
from mlgym.errors import DamagedError
from mlgym.record.checkpoint_folder import MANIFEST, RESOURCE, Manifest, remove, verified
from mlgym.record.journal import sync
from mlgym.specs import Checkpoint, RunPaths


class Uploads:
    """Takes the files of checkpoints. `limit`: bytes of one file."""

    def __init__(self, store: Store, limit: int) -> None:
        self._store = store
        self._limit = limit
        self._committing: dict[Path, asyncio.Lock] = {}

    async def receive(
        self, paths: RunPaths, experiment_id: int, epoch: int, resource: str, content: AsyncIterator[bytes]
    ) -> str:
        """Store one file; returns its sha256. The manifest commits the checkpoint.

        Raises `Refusal`: 409 for a manifest that does not fit what was sent before, 413 for too much, 507 when the
        disk does not take it.
        """
        if not re.fullmatch(RESOURCE, resource):
            raise Refusal(400, f"{resource[:80]!r} is no name of a file: expected letters, digits, '.', '_' and '-'")
        folder = self._store.inside(paths.experiment(experiment_id))
        waiting = self._store.inside(folder / f".upload-{epoch}")
        temporary = waiting / f".{os.urandom(8).hex()}"
        try:
            await asyncio.to_thread(waiting.mkdir, parents=True, exist_ok=True)
            try:
                digest = await self._write(temporary, content)
                async with self._committing.setdefault(waiting, asyncio.Lock()):
                    await asyncio.to_thread(temporary.rename, waiting / resource)
                    if resource == MANIFEST:
                        await asyncio.to_thread(_commit, waiting, Checkpoint(epoch, str(waiting)), folder / str(epoch))
                        self._committing.pop(waiting, None)
            finally:
                await asyncio.to_thread(temporary.unlink, missing_ok=True)
        except OSError as error:
            raise Refusal(507, f"the checkpoint could not be stored: {error.strerror}") from None
        return digest

    async def _write(self, path: Path, content: AsyncIterator[bytes]) -> str:
        digest = hashlib.sha256()
        size = 0
        with path.open("xb") as file:
            async for chunk in content:
                size += len(chunk)
                if size > self._limit:
                    raise Refusal(413, f"a file may have up to {self._limit:,} bytes")
                await asyncio.to_thread(file.write, chunk)
                digest.update(chunk)
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        return digest.hexdigest()


def _commit(waiting: Path, checkpoint: Checkpoint, target: Path) -> None:
    try:
        manifest = verified(checkpoint)
    except DamagedError as error:
        (waiting / MANIFEST).unlink()
        raise Refusal(409, f"the manifest does not fit the files that were sent: {error}") from None
    wanted = {MANIFEST, *(file.name for file in manifest.files)}
    for other in waiting.iterdir():
        if other.name not in wanted:
            other.unlink()
    sync(waiting)
    remove(target)
    waiting.rename(target)
    sync(target.parent)
    for older in target.parent.glob(".upload-*"):  # begun, and given up for this one
        epoch = older.name.removeprefix(".upload-")
        if epoch.isdigit() and int(epoch) < checkpoint.epoch:
            shutil.rmtree(older, ignore_errors=True)


def manifest_of(folder: Path) -> Manifest:
    """The manifest of a checkpoint that is there. Raises `Refusal`: 404."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        raise Refusal(404, f"there is no checkpoint of epoch {folder.name}") from None
