"""What a running grid shows on the terminal, read from the state of the log like everything else."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from mlgym.errors import tell_at_once
from mlgym.record.events import Event, JobStatus, JobStatusEvent
from mlgym.record.fold import Experiment, State
from mlgym.record.report import short_names, shown

_ENDED = ("DONE", "FAILED", "LOST", "STOPPED")


class Progress:
    """A hub's subscriber: bars on a terminal, otherwise one line for each experiment that ends."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._bars: dict[int, Any] = {}
        self._next = 0.0
        self._names: dict[str, str] = {}
        self._grid: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            tqdm.set_lock(threading.RLock())  # its own lock is made for many processes, and is a semaphore on disk
            self._tqdm = tqdm
            self._grid = tqdm(total=total, desc="grid", unit="exp", position=0, leave=False)

    def __call__(self, events: list[Event], state: State) -> None:
        ended = [e.payload for e in events if isinstance(e, JobStatusEvent) and e.payload.status in _ENDED]
        if self._grid is None:
            for status in ended:
                self._line(status, state)
        elif ended or time.monotonic() >= self._next:
            self._next = time.monotonic() + 0.1
            self._draw(state)

    def _line(self, status: JobStatus, state: State) -> None:
        done = sum(other.status in _ENDED for other in state.experiments.values())
        error = f": {status.error}" if status.error else ""
        experiment = state.experiments[status.experiment_id]
        tell_at_once(
            f"[{done}/{self._total}] experiment {status.experiment_id} {status.status} "
            f"after {experiment.epochs_done} epochs ({self._values(experiment)}){error}\n"
        )

    def _values(self, experiment: Experiment) -> str:
        names = self._names or short_names(experiment.swept)
        self._names = names
        return ", ".join(f"{names.get(path, path)}={shown(value)}" for path, value in experiment.swept.items())

    def _draw(self, state: State) -> None:
        running = {e.experiment_id: e for e in state.experiments.values() if e.status == "RUNNING"}
        for experiment_id in set(self._bars) - set(running):
            self._bars.pop(experiment_id).close()
        for experiment_id, experiment in running.items():
            bar = self._bars.get(experiment_id)
            if bar is None:
                bar = self._bars[experiment_id] = self._tqdm(
                    total=experiment.num_epochs,
                    leave=False,
                    bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
                )
            progress = experiment.progress
            within = progress.batch / progress.num_batches if progress.num_batches else 0
            bar.n = experiment.epochs_done + (within if progress.phase == "train" else 0)
            bar.set_description_str(
                f"{experiment_id}: {self._values(experiment)}: "
                f"epoch {experiment.epochs_done}/{experiment.num_epochs} {progress.split or 'train'}"
            )
        self._grid.n = sum(e.status in _ENDED for e in state.experiments.values())
        self._grid.refresh()

    def close(self) -> None:
        """Take the bars away."""
        if self._grid is not None:
            for bar in [*self._bars.values(), self._grid]:
                bar.close()
