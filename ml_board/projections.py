"""A state as JSON for those who only look. Pure; imports nothing of ours but the fold."""

from __future__ import annotations

import math
from typing import Any

from mlgym.record.events import Number, number, plain
from mlgym.record.fold import Experiment, State


def snapshot(state: State) -> dict[str, Any]:
    """Everything that the log says as of event `seq`, scores in columns."""
    return {
        "grid_search_id": state.grid_search_id,
        "seq": state.seq,
        "status": state.status,
        "reason": state.reason,
        "num_experiments": state.num_experiments,
        "starting_time": state.starting_time,
        "finishing_time": state.finishing_time,
        "damaged": state.damaged,
        "experiments": [_experiment(experiment) for experiment in state.experiments.values()],
    }


def _numbers(values: list[float]) -> list[Number]:
    """As strict JSON has them; that all are finite is the rule."""
    return list(values) if all(map(math.isfinite, values)) else [number(value) for value in values]


def _experiment(experiment: Experiment) -> dict[str, Any]:
    progress = experiment.progress
    return {
        "experiment_id": experiment.experiment_id,
        "config_hash": experiment.config_hash,
        "swept": plain(experiment.swept),
        "num_epochs": experiment.num_epochs,
        "attempt": experiment.attempt,
        "status": experiment.status,
        "starting_time": experiment.starting_time,
        "finishing_time": experiment.finishing_time,
        "device": experiment.device,
        "reason": experiment.reason,
        "error": experiment.error,
        "start_epoch": experiment.start_epoch,
        "epochs_done": experiment.epochs_done,
        "progress": {
            "phase": progress.phase,
            "epoch": progress.epoch,
            "split": progress.split,
            "batch": progress.batch,
            "num_batches": progress.num_batches,
        },
        "scores": {
            key: {
                "loss": key in experiment.losses,
                "epochs": scores.epochs.tolist(),
                "values": _numbers(scores.values_.tolist()),
            }
            for key, scores in experiment.scores.items()
        },
        "checkpoints": [{"epoch": epoch, "files": files} for epoch, files in experiment.checkpoints.items()],
        "changes": [
            {"epoch": c.epoch, "score": c.key, "before": number(c.before), "now": number(c.now)}
            for c in experiment.changes
        ],
    }
