"""A trained model back from its checkpoint, for use outside of mlgym."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import msgspec
from torch import nn

from mlgym.build.graph import Graph
from mlgym.engine import state_files
from mlgym.engine.executor import Blueprint
from mlgym.engine.training_state import MODEL
from mlgym.engine.worker import registry_of
from mlgym.errors import ConfigError, InputError, one_of
from mlgym.plan.config import Train, read_run_config, required
from mlgym.plan.experiments import injected, points, read_validation, recorded_folds
from mlgym.plan.resume import recorded_grid, recorded_validation
from mlgym.plan.sweep import expand
from mlgym.record.checkpoint_folder import available, verified
from mlgym.record.fold import Experiment, State
from mlgym.record.log import grid_search, read_state
from mlgym.record.report import report
from mlgym.record.scores import Scores
from mlgym.specs import Checkpoint, RunPaths

Epoch = int | Literal["best", "last"]


def load_model(
    event_storage_path: str | Path,
    gridsearch_id: str,
    experiment_id: int,
    epoch: Epoch = "best",
    blueprint: Blueprint | None = None,
) -> nn.Module:
    """See `mlgym.load_model`."""
    paths = grid_search(Path(event_storage_path), gridsearch_id)
    state = read_state(paths.log, paths.spools)
    if experiment_id not in state.experiments:
        raise InputError(f"there is no experiment {experiment_id}; {one_of(experiment_id, state.experiments)}")
    kept = [found for found in available(paths.experiment(experiment_id)) if not found.batch]
    checkpoint = _chosen(kept, state, experiment_id, epoch)
    verified(checkpoint)
    _, first = read_run_config(paths.run_config)
    assert isinstance(first.run_configuration, Train)
    config, injected = _config(paths, state, state.experiments[experiment_id])
    seed = first.run_configuration.config.seed
    graph = Graph(required(config, ["model"]), registry_of(blueprint), seed, injected)
    model: nn.Module = graph["model"]
    try:
        model.load_state_dict(state_files.read(Path(checkpoint.directory) / MODEL))
    except RuntimeError as error:
        raise ConfigError(f"the model no longer fits {checkpoint.directory}: {error}", ("model",)) from None
    return model.eval()


def _chosen(kept: list[Checkpoint], state: State, experiment_id: int, epoch: Epoch) -> Checkpoint:
    if not kept:
        raise InputError(f"experiment {experiment_id} has no checkpoint")
    by_epoch = {checkpoint.epoch: checkpoint for checkpoint in kept}
    if epoch == "last":
        return kept[0]
    if epoch != "best":
        if epoch not in by_epoch:
            epochs = ", ".join(map(str, sorted(by_epoch)))
            raise InputError(f"experiment {experiment_id} has no checkpoint of epoch {epoch}; there is: {epochs}")
        return by_epoch[epoch]
    found = report(state)
    scores = state.experiments[experiment_id].scores.get(found.score or "", Scores())
    sign = -1 if found.mode == "max" else 1
    ranked = sorted((value * sign, at) for at, value in scores.items() if value == value)  # noqa: PLR0124 (no NaN)
    best = next((at for _, at in ranked if at in by_epoch), kept[0].epoch)
    if ranked and ranked[0][1] != best:
        warnings.warn(
            f"{found.score} was best at epoch {ranked[0][1]}, whose checkpoint was not kept (see "
            f"checkpointing_strategy); this is epoch {best}",
            stacklevel=4,
        )
    return by_epoch[best]


def _config(paths: RunPaths, state: State, experiment: Experiment) -> tuple[dict[str, Any], dict[str, Any]]:
    """The experiment's configuration, and what is injected: from the grid it is in or, if it no longer is, as it was
    recorded."""
    grid, document = recorded_grid(paths, state), recorded_validation(paths)
    validation = read_validation(document, grid) if document else None
    for cell in points(expand(grid.value), validation):
        if cell.hash == experiment.config_hash:
            folds = recorded_folds(validation, state)
            return cell.config, injected(
                experiment.experiment_id, cell, folds.indices() if folds else {}
            ) if validation else {}
    recorded = paths.experiment(experiment.experiment_id) / "experiment_config.json"
    return msgspec.json.decode(recorded.read_bytes()), {}
