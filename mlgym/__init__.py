"""Run, survive, understand and reproduce a grid of deep-learning experiments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mlgym.cli import run

if TYPE_CHECKING:
    from torch import nn

    from mlgym.engine.executor import Blueprint

__all__ = ["load_model", "run"]


def load_model(
    event_storage_path: str | Path,
    gridsearch_id: str,
    experiment_id: int,
    epoch: int | Literal["best", "last"] = "best",
    blueprint: Blueprint | None = None,
) -> nn.Module:
    """The trained model of an experiment, on the CPU and in evaluation mode.

    `epoch` counts finished epochs; "best" is the best of those whose checkpoints were kept, by the score that
    `mlgym status` judges by. `blueprint` registers a model of your own, as in `run`; one named by a dotted path needs
    none. Raises `InputError` for what is not there and `DamagedError` for a checkpoint that has changed.
    """
    from mlgym.engine import trained

    return trained.load_model(event_storage_path, gridsearch_id, experiment_id, epoch, blueprint)
