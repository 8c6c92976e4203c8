"""Checkpoints on disk: committed whole or not at all, verified before they are used.

    .new-<pid>/ ──fsync──► <epoch>/ or <epoch>-<batch>/ ──fsync of the folder──► event ──► what it replaces is deleted

The state is copied in the training's thread and written by another; one at most is being written. An experiment's
folder is written by the one process that runs it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mlgym.engine import state_files
from mlgym.engine.state_files import Frozen
from mlgym.errors import DamagedError, InputError, tell
from mlgym.record.checkpoint_folder import MANIFEST, Manifest, available, remove, remove_unfinished, verified
from mlgym.record.events import CheckpointEvent, CheckpointFile, Payload, Warned
from mlgym.record.journal import sync
from mlgym.specs import Checkpoint, ExperimentSpec


class Checkpoints:
    """The checkpoints of one running experiment. `emit` may be called from another thread."""

    def __init__(self, folder: Path, spec: ExperimentSpec, emit: Callable[[Payload], None]) -> None:
        self._folder = folder
        self._spec = spec
        self._emit = emit
        self._writer = ThreadPoolExecutor(1, "checkpoint")  # one thread for all: starting one makes the caller wait
        self._writing: Future[None] | None = None
        self._frozen: dict[str, Frozen] = {}
        self._first = True
        self._overdue: set[int] = set()
        """Epochs to delete once there is a newer checkpoint on disk."""
        remove_unfinished(folder)

    def newest(self) -> tuple[Checkpoint, Manifest] | None:
        """The newest checkpoint that is whole, not newer than the one that the spec names; None when there is none."""
        start = self._spec.start
        for checkpoint in available(self._folder) if start else []:
            assert start is not None
            if (checkpoint.epoch, checkpoint.batch) > (start.epoch, start.batch):
                continue
            try:
                return checkpoint, verified(checkpoint)
            except DamagedError as error:
                self.warn(f"a checkpoint is damaged, the one before it is used: {error}")
        return None

    def resumed(self, checkpoint: Checkpoint, manifest: Manifest) -> None:
        """Do again what a kill may have cut off after `checkpoint` was committed."""
        self._overdue |= set(manifest.delete)
        self._after_commit(checkpoint.epoch, checkpoint.batch, manifest.files, manifest.delete)

    def save(self, epoch: int, batch: int, state: Mapping[str, Any], delete: Iterable[int] = ()) -> None:
        """Save `state`, a tree for each file name; returns once it is copied. Waits for the save before.

        When it is committed, the epochs in `delete` and all older checkpoints within epochs are deleted.
        """
        self.wait()
        self._frozen = {name: state_files.freeze(tree, self._frozen.get(name)) for name, tree in state.items()}
        refuse_tensors_in_json(self._frozen)
        self._overdue |= set(delete)
        self._writing = self._writer.submit(self._write, epoch, batch)

    def wait(self) -> None:
        """Until nothing is being written."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def _write(self, epoch: int, batch: int) -> None:
        try:
            self._commit(epoch, batch)
        except OSError as error:
            self.warn(f"the checkpoint of epoch {epoch} could not be written, the one before it stays: {error}")

    def _commit(self, epoch: int, batch: int) -> None:
        new = self._folder / f".new-{os.getpid()}"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        try:
            # Not by one within an epoch: an epoch that could not be saved must not cost the one before it.
            delete = [] if batch else sorted(self._overdue - {epoch})
            files = [
                CheckpointFile(name, *state_files.write(new / name, _content(name, frozen)))
                for name, frozen in self._frozen.items()
            ]
            state_files.write(new / MANIFEST, [Manifest(epoch, batch, files, delete).sealed()])
            for name in (*self._frozen, MANIFEST):  # all of them written first: the disk then works once
                sync(new / name)
            sync(new)
            target = self._folder / (f"{epoch}-{batch}" if batch else str(epoch))
            remove(target)  # one that was damaged
            new.rename(target)
            sync(self._folder)
            if self._first:  # the folder is as new as what is in it
                sync(self._folder.parent)
                self._first = False
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        self._after_commit(epoch, batch, files, delete)

    def _after_commit(self, epoch: int, batch: int, files: list[CheckpointFile], delete: Iterable[int]) -> None:
        self._changed(epoch, batch, "SAVED", files)
        for gone in delete:
            remove(self._folder / str(gone))
            self._overdue.discard(gone)
            self._changed(gone, 0, "DELETED", [])
        for other in available(self._folder):
            if other.batch and (other.epoch, other.batch) < (epoch, batch):
                remove(Path(other.directory))
                self._changed(other.epoch, other.batch, "DELETED", [])

    def _changed(self, epoch: int, batch: int, action: Any, files: list[CheckpointFile]) -> None:
        self._emit(
            CheckpointEvent(
                grid_search_id=self._spec.grid_search_id,
                experiment_id=self._spec.experiment_id,
                epoch=epoch,
                batch=batch,
                action=action,
                files=files,
            )
        )

    def warn(self, message: str) -> None:
        tell(f"warning: experiment {self._spec.experiment_id}: {message}")
        self._emit(
            Warned(grid_search_id=self._spec.grid_search_id, experiment_id=self._spec.experiment_id, message=message)
        )


def refuse_tensors_in_json(state: Mapping[str, Frozen]) -> None:
    """Raises `InputError` for a tensor in a state that goes into a JSON file."""
    for name, frozen in state.items():
        if name.endswith(".json") and frozen.tensors:
            raise InputError(f"{next(iter(frozen.tensors))} is a tensor, which {name} cannot hold")


def _content(name: str, frozen: Frozen) -> Iterable[bytes | memoryview]:
    return [frozen.tree.encode()] if name.endswith(".json") else state_files.chunks(frozen)
